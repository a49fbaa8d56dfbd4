"""The worker: turns messages into jobs, and stops without losing any.

Stopping: fetch no more; what has not begun goes back at once; what runs has `grace` seconds, then is cancelled (on the loop) or
left (in a thread) and goes back; everything is settled; then the process ends. A second request to stop skips the grace.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.client.endpoint import discover
from mqueue.clock import Clock, SystemClock
from mqueue.errors import MQueueError
from mqueue.worker import codec, declarer, outcome, periodic
from mqueue.worker.app import MQueue, default
from mqueue.worker.executor import Executor
from mqueue.worker.fetcher import Fetcher, lanes
from mqueue.worker.heartbeat import Heartbeat
from mqueue.worker.job import Job
from mqueue.worker.outcome import Outcome
from mqueue.worker.presence import Presence, new_name
from mqueue.worker.watchdog import Watchdog

CANCEL_S = 1.0  # for cancelled handlers to clean up
SETTLE_S = 5.0  # for the last settles
RENEW_TIMEOUT_S = 5.0
TELL_TIMEOUT_S = 5.0

log = structlog.get_logger("mqueue.worker")


class WorkerError(MQueueError):
    """The worker cannot start; `detail` says why."""

    code, title = "worker", "The worker cannot start"


class Worker:
    """Runs the tasks of `app`: `await worker.run()`, ended by `worker.stop()`.

    `url`, `token`: its broker; None for the app's own. `namespace`: take messages from it, whatever the tasks say. `topics`: only
    from these, which must be topics of its tasks. `concurrency`: jobs at a time. `grace`: seconds that running jobs get when it
    stops. `name`: what it is called in the broker's list of workers, or one of its own. `counts`: acked, nacked, … so far.
    """

    def __init__(
        self,
        app: MQueue = default,
        *,
        url: str | None = None,
        token: str | None = None,
        namespace: str | None = None,
        topics: Sequence[str] = (),
        concurrency: int = 20,
        grace: float = 30.0,
        name: str | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if concurrency < 1:
            raise WorkerError(f"concurrency is at least 1, not {concurrency}")
        self.name = name if name is not None else new_name()
        if not re.fullmatch(m.NAME_PATTERN, self.name):
            raise WorkerError(f"name {self.name!r}: 1 to {m.NAME_MAX} of letters, digits, _ . -")
        self._app = app
        own_url, own_token = app.producer.endpoint
        self._endpoint = discover(url or own_url, token or (None if url else own_token))
        self._sources = sources(app, namespace, topics)
        self._schedules = periodic.of(list(app), namespace, set(self._sources))
        self._concurrency = concurrency
        self._grace = grace
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._jobs: set[Job] = set()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._refusal: MQueueError | None = None
        self.counts: Counter[str] = Counter()
        self.cut_off = 0  # handlers that still ran when the worker gave them up

    def stop(self) -> None:
        """Stop gracefully; called again, at once. On the worker's loop."""
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    async def run(self) -> int:
        """Until stopped: 0, or 1 when the broker did not take the last settles.

        Raises WorkerError for a task whose annotations cannot be read, and what the broker said if it refuses the token.
        """
        prepare(self._app)
        loop = asyncio.get_running_loop()
        url, token = self._endpoint.url, self._endpoint.token
        renewer = Client(url, token, retries=False, timeout=RENEW_TIMEOUT_S)
        self._heartbeat = Heartbeat(renewer.extend, lambda job: self._from_thread(loop, job), self._clock)
        teller = Client(url, token, retries=False, timeout=TELL_TIMEOUT_S)
        names = sorted(task.name for task in self._app)
        self._presence = Presence(teller.tell, self.name, self._sources, names, self._concurrency, self._jobs, self.counts, self._clock)
        self._executor = Executor(loop, self._concurrency, self._ended, self._jitter)
        async with AsyncClient(url, token, retries=False) as client:
            self._fetcher = Fetcher(
                client.poll,
                lanes(self._sources),
                self._concurrency,
                arrived=self._arrived,
                settled=self._settled,
                refused=self._refused,
                jitter=self._jitter,
            )
            watchdog = Watchdog(loop)
            declaring = asyncio.create_task(declarer.declare(self._schedules, client.put_schedule, self._jitter))
            self._heartbeat.start()
            watchdog.start()
            self._presence.start()
            try:
                self._fetcher.start()
                self._log_start(url)
                await self._stopping.wait()
                unsettled = await self._wind_down()
            finally:
                declaring.cancel()
                self._fetcher.abort()
                self._heartbeat.stop()
                watchdog.stop()
                self._executor.stop()
                self._presence.stop()
                renewer.close()
                teller.close()
                self._cancel()  # for a run() that is itself cancelled
        log.info("stopped", **self.counts, unsettled=unsettled)
        if self._refusal is not None:
            raise self._refusal
        return 1 if unsettled else 0

    # ── a message comes, a job ends ──

    def _arrived(self, message: wire.Message) -> None:
        if self._stopping.is_set():
            return self._fetcher.finish(outcome.RELEASED.settle(message), None)
        try:
            job = self._job(message)
        except Exception as error:  # a misfit, or anything that a task's own types do: the batch goes on
            self._turn_away(message, outcome.decide(error))
        else:
            if job is None:
                return
            self._jobs.add(job)
            self._heartbeat.hold(job)
            self._executor.start(job)

    def _job(self, message: wire.Message) -> Job | None:
        """None: this worker does not know the task, and has said so. Raises Misfit."""
        call = codec.decode(message.payload)
        task = self._app.get(call.task)
        if task is None:
            self._turn_away(message, outcome.unknown(call.task))
            return None
        args, kwargs = task.shape.fit(call.args, call.kwargs)
        return Job(message, task, args, kwargs, message.lease)

    def _turn_away(self, message: wire.Message, verdict: Outcome) -> None:
        log.warning("message turned away", id=message.id, topic=message.topic, attempt=message.attempt, error=verdict.error)
        self.counts[verdict.kind] += 1
        self._fetcher.finish(verdict.settle(message), None)

    def _ended(self, job: Job, result: Outcome) -> None:
        self._jobs.discard(job)
        if not self._jobs:
            self._idle.set()
        if job.lost:
            self.counts["lost"] += 1
            return self._fetcher.finish(None, job)
        self.counts[result.kind] += 1
        if result.error is not None:
            error = result.error.partition("\n\n")[0]
            log.warning("job failed", task=job.task.name, id=job.message.id, attempt=job.message.attempt, error=error)
        return self._fetcher.finish(result.settle(job.message), job)

    def _settled(self, job: Job | None, status: m.Verdict | None) -> None:
        if job is not None:
            self._heartbeat.drop(job)
            if status == "stale":
                log.warning("lease had ended, the job runs again", task=job.task.name, id=job.message.id)

    def _from_thread(self, loop: asyncio.AbstractEventLoop, job: Job) -> None:
        try:
            loop.call_soon_threadsafe(self._lost, job)
        except RuntimeError:
            pass  # the loop is closed, the worker gone

    def _lost(self, job: Job) -> None:
        if job.ended:
            return
        log.warning("lease lost, the job runs elsewhere", task=job.task.name, id=job.message.id)
        job.lost = True
        if (cancel := job.cancel) is not None:
            cancel()

    def _refused(self, error: MQueueError) -> None:
        self._refusal = error
        self._stopping.set()

    # ── stopping ──

    async def _wind_down(self) -> int:
        """How many settles could not be told."""
        self._fetcher.close()
        self._presence.stopping()
        await self._quiet(self._grace, self._hurry)
        self.cut_off = len(self._jobs)
        self._cancel()
        await self._quiet(CANCEL_S)
        for job in list(self._jobs):
            self._give_up(job)
        return await self._fetcher.drain(SETTLE_S)

    def _cancel(self) -> None:
        """Handlers on the loop get a CancelledError; a thread cannot be stopped."""
        for job in list(self._jobs):
            job.stopping = True
            if (cancel := job.cancel) is not None:
                cancel()
            else:
                self._give_up(job)

    async def _quiet(self, patience: float, *interrupts: asyncio.Event) -> None:
        """Until no job runs, for `patience` seconds at most."""
        if not self._jobs:
            return
        self._idle.clear()
        waits = {asyncio.ensure_future(event.wait()) for event in (self._idle, *interrupts)}
        await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _give_up(self, job: Job) -> None:
        job.ended = True
        self._ended(job, outcome.RELEASED)

    def _log_start(self, url: str) -> None:
        names = sorted(task.name for task in self._app)
        log.info("started", worker=self.name, broker=url, topics=[str(s) for s in self._sources], tasks=names, concurrency=self._concurrency)


def sources(app: MQueue, namespace: str | None, topics: Sequence[str]) -> list[m.TopicName]:
    """Where to fetch: of the tasks' topics, those asked for. Raises WorkerError where that is nothing."""
    known = app.topics(namespace)
    if not known:
        raise WorkerError("no tasks found: is there a function with @task in the modules named?")
    if unknown := set(topics) - {name.topic for name in known}:
        of_tasks = ", ".join(sorted({name.topic for name in known}))
        raise WorkerError(f"no task has topic {', '.join(sorted(unknown))}; there are: {of_tasks}")
    return [name for name in known if not topics or name.topic in topics]


def prepare(app: MQueue) -> None:
    """Can its tasks be run? Raises WorkerError, naming the task: an annotation that cannot be resolved, no way into a process."""
    for task in app:
        try:
            task.shape.prepare()
            if task.executor == "process":
                task.check_process()
        except TypeError as error:
            raise WorkerError(f"task {task.name}: {error}") from error
