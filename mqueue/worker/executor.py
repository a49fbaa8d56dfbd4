"""Runs the handlers: `async def` on the event loop, `def` in threads. Each job ends with one outcome, told on the loop."""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any

from mqueue.worker.job import Job, running
from mqueue.worker.outcome import DONE, NeverRan, Outcome, decide

Ended = Callable[[Job, Outcome, BaseException | None], None]


class Executor:
    """`ended(job, outcome, error)` is called on `loop` once for each started job, unless it had been given up (`job.ended`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int, ended: Ended, jitter: Callable[[], float]) -> None:
        self._loop = loop
        self._jitter = jitter
        self._threads = Threads(threads)
        self._ended = ended

    def stop(self) -> None:
        """Idle threads end; a handler that runs is left to itself."""
        self._threads.stop()

    def start(self, job: Job) -> None:
        if job.task.is_async:
            self._loop.create_task(self._run(job))
            return
        try:
            self._threads.submit(lambda: self._call(job))
        except Exception as error:  # there is no thread to be had
            self._tell(job, self._decide(job, error), error)

    async def _run(self, job: Job) -> None:
        if job.ended:
            return
        running.set(job)
        job.cancel = asyncio.current_task(self._loop).cancel  # type: ignore[union-attr]
        error: BaseException | None = None
        try:
            refuse_unrun(job, await job.task.function(*job.args, **job.kwargs))
        except BaseException as raised:  # SystemExit too: a handler must not end the worker
            error = raised
        job.cancel = None
        self._tell(job, self._decide(job, error), error)

    def _call(self, job: Job) -> None:
        if job.ended:
            return
        token = running.set(job)
        error: BaseException | None = None
        try:
            refuse_unrun(job, job.task.function(*job.args, **job.kwargs))
        except BaseException as raised:
            error = raised
        running.reset(token)
        try:
            self._loop.call_soon_threadsafe(self._tell, job, self._decide(job, error), error)
        except RuntimeError:
            pass  # the loop is closed: the worker has given this job up and gone

    def _decide(self, job: Job, error: BaseException | None) -> Outcome:
        if error is None:
            return DONE
        return decide(error, retry=job.task.retry, attempt=job.message.attempt, chance=self._jitter(), stopping=job.stopping)

    def _tell(self, job: Job, outcome: Outcome, error: BaseException | None) -> None:
        if not job.ended:
            job.ended = True
            self._ended(job, outcome, error)


def refuse_unrun(job: Job, result: Any) -> None:
    """A plain wrapper around an `async def`, say, gives back a coroutine of which nothing has run. Raises NeverRan."""
    if not isinstance(result, Awaitable | Generator | AsyncGenerator) or asyncio.isfuture(result):  # a future runs by itself
        return
    if isinstance(result, Coroutine | Generator):
        result.close()  # no warning that it was never awaited
    raise NeverRan(
        f"task {job.task.name} gave back a {type(result).__name__}, which nothing runs: write the task, and each wrapper around it, "
        "as `async def` with `await`, or as a `def` without `yield`"
    )


class Threads:
    """Up to `size` threads, made when needed. Daemons: a handler that never returns cannot keep the process alive."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._made = 0
        self._idle = threading.Semaphore(0)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """From one thread only. The caller keeps to `size` at a time, so that nothing waits here.

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
