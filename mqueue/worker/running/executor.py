"""Runs the handlers: `async def` on the event loop, `def` in threads, some in processes. What each made of its job is
told on the loop.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context

from mqueue.worker.running.handler import call, call_async
from mqueue.worker.running.outcome import RELEASED, Outcome, decide, decide_each, done
from mqueue.worker.running.processes import Processes
from mqueue.worker.tasks.job import Current, Job
from mqueue.worker.tasks.middleware import around
from mqueue.worker.tasks.signals import ProcessEnded

Ended = Callable[[Job, Sequence[Outcome]], None]


class Executor:
    """It runs what is started. `ended(job, outcomes)` is called on `loop` once for each started job, and sets
    `job.ended`; never for one that had been given up.

    `outcomes`: one, or those of a batch's jobs, in their order; interrupts are not counted in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int, ended: Ended, jitter: Callable[[], float]) -> None:
        self._loop = loop
        self._threads = Threads(threads)
        self._processes = Processes()
        self._ended = ended
        self._jitter = jitter
        self._context = copy_context()  # each job begins with a copy: what others leave in theirs is not its own

    def stop(self) -> None:
        """Idle threads and all processes end; a handler that runs in a thread is left to itself."""
        self._threads.stop()
        self._processes.stop()

    def start(self, job: Job) -> None:
        where = job.task.executor
        if where == "loop":
            self._loop.create_task(self._on_loop(job), context=self._context.copy())
            return
        run = self._in_process if where == "process" else self._in_thread
        try:
            self._threads.submit(lambda: run(job))
        except Exception as error:  # no thread can be made
            self._tell(job, self._outcomes(job, error))

    async def _on_loop(self, job: Job) -> None:
        if self._is_over(job):
            return
        job.cancel = asyncio.current_task(self._loop).cancel  # type: ignore[union-attr]
        error = await call_async(job)
        job.cancel = None
        self._tell(job, self._outcomes(job, error))

    def _in_thread(self, job: Job) -> None:
        if not self._is_over(job):
            self._tell_from_thread(job, self._outcomes(job, self._context.copy().run(call, job)))

    def _in_process(self, job: Job) -> None:
        """The thread waits for the process, which runs the job."""
        if self._is_over(job):
            return
        try:
            outcomes: Sequence[Outcome] = [self._processes.run(job)]
        except ProcessEnded as ended:  # the middleware in the process saw nothing of its end
            self._context.copy().run(show, job, ended)
            outcomes = self._outcomes(job, ended)
        except BaseException as error:
            outcomes = self._outcomes(job, error)
        self._tell_from_thread(job, outcomes)

    def _is_over(self, job: Job) -> bool:
        """Is there nothing to begin? Who interrupted it, or gave it up, did so as it waited for its turn."""
        interrupted = bool(job.interrupts)
        if interrupted and not job.ended:
            self._tell_from_thread(job, [RELEASED] * len(job.members))
        return job.ended or interrupted

    def _outcomes(self, job: Job, error: BaseException | None) -> Sequence[Outcome]:
        """Says what the handler made of it, of each item of a batch. That is done where the handler ran: to format an
        error may take time, or want its thread.
        """
        if job.batch is None:
            return [self._decide(job, error)]
        if error is not None:
            attempts = [each.message.attempt for each in job.batch]
            return decide_each(error, retry=job.task.retry, attempts=attempts, jitter=self._jitter)
        return [self._decide(each, wrong) for each, wrong in zip(job.batch, job.verdicts, strict=True)]

    def _decide(self, job: Job, error: BaseException | None) -> Outcome:
        if error is None:
            return done(job.result, job.task.result_ttl)
        return decide(error, retry=job.task.retry, attempt=job.message.attempt, chance=self._jitter())

    def _tell_from_thread(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._tell, job, outcomes)
        except RuntimeError:
            pass  # the loop is closed: the worker has given this job up and gone

    def _tell(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        if not job.ended:
            self._ended(job, outcomes)


def show(job: Job, error: Exception) -> None:
    """Shows the middleware a run that ended so. It is one whatever they make of it."""
    with suppress(BaseException), around(job.task.app.run_hooks, Current(job)):
        raise error


class Threads:
    """It makes up to `size` threads, when they are needed. Daemons: a handler that never returns cannot keep the
    process alive.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._made = 0
        self._idle = threading.Semaphore(0)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """Hands `work` to an idle thread, or a new one. It is called from one thread only, who keeps to `size` at a
        time, so that nothing waits here.

        Raises RuntimeError where a thread is needed and cannot be made; `work` is forgotten then.
        """
        if not self._idle.acquire(blocking=False) and self._made < self._size:
            threading.Thread(target=self._serve, name=f"mqueue-job-{self._made + 1}", daemon=True).start()
            self._made += 1
        self._work.put(work)

    def stop(self) -> None:
        for _ in range(self._made):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            self._idle.release()
