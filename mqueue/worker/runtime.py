"""The worker puts its parts together, and leads each message through them, from its arrival to its settle.

A message becomes a job (`intake.py`), runs (`running/`), ends in one way (`running/ending.py`) and is settled with the
next poll (`polling/`). How all of it stops is told in `stopping.py`.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.client.endpoint import discover
from mqueue.clock import Clock, SystemClock
from mqueue.errors import MQueueError
from mqueue.worker.intake import read
from mqueue.worker.polling.fetcher import Fetcher
from mqueue.worker.polling.lane import Lane, lanes
from mqueue.worker.polling.reach import Reach, fetchable
from mqueue.worker.recycling import LOOK_S, Recycling
from mqueue.worker.running import outcome
from mqueue.worker.running.batch import Gatherer, job_of
from mqueue.worker.running.ending import endings
from mqueue.worker.running.executor import Executor
from mqueue.worker.running.interrupts import Interrupts
from mqueue.worker.running.outcome import Outcome
from mqueue.worker.sources import WorkerError, batches, prepare, sources
from mqueue.worker.status import Status
from mqueue.worker.stopping import Stopping, WindingDown
from mqueue.worker.tasks import periodic
from mqueue.worker.tasks.app import MQueue, default
from mqueue.worker.tasks.job import Interrupt, Job
from mqueue.worker.watching import declarer
from mqueue.worker.watching.cancellations import Cancellations
from mqueue.worker.watching.heartbeat import Heartbeat
from mqueue.worker.watching.presence import Presence, new_name
from mqueue.worker.watching.watchdog import Watchdog

RENEW_TIMEOUT_S = 5.0
TELL_TIMEOUT_S = 5.0

log = structlog.get_logger("mqueue.worker")


class Worker:
    """It runs the tasks of `app`: `await worker.run()`, ended by `worker.stop()`.

    `url`, `token`: its broker; None for the app's own. `namespace`: take messages from it, whatever the tasks say.
    `topics`: only from these, `exclude`: from these not; topics of its tasks. `concurrency`: jobs at a time. `grace`:
    seconds that running jobs get when it stops. `max_jobs`, `max_memory_mb`: it stops by itself once so many have
    ended, or it holds more MiB than that. `name`: what it is called in the broker's list of workers, or one of its own.
    `counts`: acked, nacked, … so far.
    """

    def __init__(
        self,
        app: MQueue = default,
        *,
        url: str | None = None,
        token: str | None = None,
        namespace: str | None = None,
        topics: Sequence[str] = (),
        exclude: Sequence[str] = (),
        concurrency: int = 20,
        grace: float = 30.0,
        max_jobs: int | None = None,
        max_memory_mb: float | None = None,
        name: str | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if concurrency < 1:
            raise WorkerError(f"concurrency is at least 1, not {concurrency}")
        try:
            self._recycling = Recycling(max_jobs, max_memory_mb)
        except ValueError as error:
            raise WorkerError(str(error)) from error
        self.name = name if name is not None else new_name()
        if not re.fullmatch(m.NAME_PATTERN, self.name):
            raise WorkerError(f"name {self.name!r}: 1 to {m.NAME_MAX} of letters, digits, _ . -")
        self._app = app
        own_url, own_token = app.producer.endpoint
        self._endpoint = discover(url or own_url, token or (None if url else own_token))
        self._sources = sources(app, namespace, topics, exclude)
        self._batches = batches(app, namespace, self._sources)
        self._gatherer = Gatherer(self._begin)
        self._schedules = periodic.of(list(app), namespace, set(self._sources))
        self._concurrency = concurrency
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._reach = Reach(self._clock)
        self._watchdog: Watchdog | None = None
        self._jobs: set[Job] = set()
        self._interrupts = Interrupts(self._jobs)
        self._past = 0  # jobs that ended
        self._stopping = Stopping()
        self._winding_down = WindingDown(self._stopping, self._jobs, self._interrupts, self._released, grace)
        self._refusal: MQueueError | None = None
        self.started = False
        self.counts: Counter[str] = Counter()

    def stop(self) -> None:
        """Stops it gracefully; called again, at once. It is to be called on the worker's loop."""
        self._stopping.tell()

    def retire(self) -> None:
        """Stops it gracefully; called again, it means nothing more. It is to be called on the worker's loop."""
        self._stopping.retire()

    def hurry(self) -> None:
        """Stops it at once. It is to be called on the worker's loop."""
        self._stopping.retire()
        self._stopping.tell()

    @property
    def blocked(self) -> bool:
        """Is its loop blocked, so that it hears nothing of `stop`? It may be asked from any thread."""
        return self._watchdog is not None and self._watchdog.blocked

    @property
    def cancelled(self) -> int:
        """Counts the handlers that it told to end: threads that they waited for may go on."""
        return self._winding_down.cancelled

    @property
    def cut_off(self) -> int:
        """Counts the handlers that still ran when it gave them up."""
        return self._winding_down.cut_off

    def status(self) -> Status:
        """Tells how it is. May be called from any thread."""
        problem = self._reach.problem()
        if self._stopping.began.is_set():
            problem = "the worker stops"
        elif self.blocked:
            problem = "the event loop is blocked: the log says where"
        return Status(problem, dict(list(self.counts.items())), len(self._jobs), self._concurrency)

    async def run(self) -> int:
        """Runs until stopped. Returns 0, or 1 when the broker did not take the last settles.

        Raises WorkerError for a task whose annotations cannot be read, where it holds more than `max_memory_mb`
        already, and what the broker said if it refuses the token.
        """
        prepare(self._app)
        if (reason := self._recycling.now()) is not None:  # another worker in its place would be no better
            raise WorkerError(f"{reason}, before its first job")
        url, token = self._endpoint.url, self._endpoint.token
        with (
            Client(url, token, retries=False, timeout=RENEW_TIMEOUT_S) as renewer,
            Client(url, token, retries=False, timeout=TELL_TIMEOUT_S) as teller,
        ):
            async with AsyncClient(url, token, retries=False) as client:
                self._make_threads(asyncio.get_running_loop(), renewer, teller)
                self._make_polls(client)
                unsettled = await self._serve(client)
        log.info("stopped", **self.counts, unsettled=unsettled)
        if self._refusal is not None:
            raise self._refusal
        return 1 if unsettled else 0

    def _make_threads(self, loop: asyncio.AbstractEventLoop, renewer: Client, teller: Client) -> None:
        """Makes the parts that have threads of their own."""
        self._heartbeat = Heartbeat(
            renewer.extend,
            lambda job: _from_thread(loop, self._interrupts.lost, job),
            self._clock,
            lambda job: _from_thread(loop, self._interrupts.overdue, job),
            lambda: _from_thread(loop, self._fetcher.late),
        )
        names = sorted(task.name for task in self._app)
        self._presence = Presence(teller.tell, self.name, self._sources, names, self._concurrency, self._jobs, self.counts, self._clock)
        self._executor = Executor(loop, self._concurrency, self._ended, self._jitter)
        self._watchdog = Watchdog(loop)

    def _make_polls(self, client: AsyncClient) -> None:
        """Makes the parts that ask the broker on the loop."""
        self._fetcher = Fetcher(
            self._reach.watched(client.poll),
            lanes(self._sources, self._batches),
            self._concurrency,
            arrived=self._arrived,
            settled=self._settled,
            refused=self._refused,
            jitter=self._jitter,
            gathered=self._gathered,
            complete=self._gatherer.begin,
        )
        namespaces = sorted({source.namespace for source in self._sources})
        self._cancellations = Cancellations(client.cancelled, namespaces, lambda: bool(self._jobs), self._interrupts.cancelled, self._jitter)

    def _beside(self, client: AsyncClient) -> list[asyncio.Task[None]]:
        """Starts what runs on the loop beside the polls."""
        work: list[Coroutine[Any, Any, None]] = [
            declarer.declare(self._schedules, client.put_schedule, self._jitter),
            self._reach.keep(lambda: self._check(client), client.renew, lambda: self._doubt(client), self._fetcher.resume),
        ]
        if self._recycling.looks:
            work.append(self._look_at_memory())
        return [asyncio.create_task(each) for each in work]

    async def _serve(self, client: AsyncClient) -> int:
        """Serves until it is to stop, and winds down. Returns how many settles the broker did not take."""
        assert self._watchdog is not None
        for thread in (self._heartbeat, self._watchdog, self._presence):
            thread.start()
        beside = self._beside(client)
        unsettled = 0
        try:
            self._fetcher.start()
            self.started = True
            self._log_start()
            await self._stopping.began.wait()
            unsettled = await self._wind_down()
            return unsettled
        finally:
            for task in beside:
                task.cancel()
            self._fetcher.abort()
            for part in (self._cancellations, self._heartbeat, self._watchdog, self._executor):
                part.stop()
            self._presence.stop(heard=not unsettled)
            self._winding_down.cancel()  # jobs still run where this run() is itself cancelled

    async def _check(self, client: AsyncClient) -> str | None:
        """Could a fetch be served now? What is wrong, or None. Raises what the broker says of the token."""
        await client.poll(wire.Poll(namespace=self._sources[0].namespace))
        return fetchable(await client.ready())

    async def _doubt(self, client: AsyncClient) -> None:
        self._fetcher.doubt()
        await client.drop_old()

    # ── a message comes, a job ends ──

    def _arrived(self, message: wire.Message) -> None:
        job = self._received(message)
        if job is None:
            self._fetcher.finish(None, None)
        else:
            self._start(job if job.task.batch is None else job_of([job]))

    def _gathered(self, lane: Lane, messages: Sequence[wire.Message]) -> int:
        """These came for the lane's batch. Returns how many more it wants; 0 where it has begun, or none of them could
        be run.
        """
        came = [self._received(message) for message in messages]
        jobs = [job for job in came if job is not None]
        room = self._gatherer.add(lane, jobs, lane.batch or 1)
        if not room and not jobs and not lane.filling:
            self._fetcher.finish(None, None)
        return room

    def _received(self, message: wire.Message) -> Job | None:
        """Gives its job, whose lease is renewed from now on; None where it was turned away, or handed back."""
        if self._stopping.began.is_set():
            self._fetcher.finish(outcome.RELEASED.settle(message), None, slots=0)
            return None
        job = read(message, self._app, self._batches)
        if isinstance(job, Outcome):
            self._turn_away(message, job)
            return None
        self._heartbeat.hold(job)
        return job

    def _start(self, job: Job) -> None:
        self._interrupts.begin(job, self._cancellations.has)
        self._jobs.add(job)
        if (limit := job.task.max_run_time) is not None:
            for each in job.members:
                self._heartbeat.limit(each, limit)
        self._cancellations.listen()
        self._executor.start(job)

    def _begin(self, jobs: Sequence[Job]) -> None:
        """A batch begins, without what was lost as it was gathered, or may have been: while the worker was away."""
        away_s = self._fetcher.away_s(jobs[0].came)
        kept = [job for job in jobs if Interrupt.LOST not in job.interrupts and away_s <= job.lease / 3]
        if not kept:
            return self._released(job_of(jobs))
        for job in {*jobs} - {*kept}:
            [result] = endings(job, [outcome.RELEASED], self._jitter)
            self._finish(job, result, slots=0)
        return self._start(job_of(kept))

    def _turn_away(self, message: wire.Message, verdict: Outcome) -> None:
        log.warning("message turned away", id=message.id, topic=message.topic, attempt=message.attempt, error=verdict.error)
        self.counts[verdict.kind] += 1
        self._fetcher.finish(verdict.settle(message), None, slots=0)

    def _released(self, job: Job) -> None:
        self._ended(job, [outcome.RELEASED] * len(job.members))

    def _ended(self, job: Job, ran: Sequence[Outcome]) -> None:
        """Its handler has ended, or was given up. `ran`: what that alone makes of each of its members."""
        job.ended = True
        self._jobs.discard(job)
        if not self._jobs:
            self._stopping.idle.set()
        results = endings(job, ran, self._jitter)
        self._past += len(results)
        self._recycle(self._recycling.after(self._past))
        self._log_failure(job, results)
        slots = 1
        for each, of_each in zip(job.members, results, strict=True):
            self._finish(each, of_each, slots)
            slots = 0

    def _finish(self, job: Job, result: Outcome | None, slots: int) -> None:
        job.ended = True
        self.counts["lost" if result is None else result.kind] += 1
        self._fetcher.finish(None if result is None else result.settle(job.message), job, slots)

    def _log_failure(self, job: Job, results: Sequence[Outcome | None]) -> None:
        failed = [each.error for each in results if each is not None and each.error is not None]
        if failed:
            of = {"items": len(results), "failed": len(failed)} if job.batch else {"attempt": job.message.attempt}
            log.warning("job failed", task=job.task.name, id=job.message.id, **of, error=failed[0].partition("\n\n")[0])

    def _settled(self, job: Job | None, status: m.Verdict | None) -> None:
        if job is not None:
            self._heartbeat.drop(job)
            if status == "stale":
                log.warning("lease had ended, the job runs again", task=job.task.name, id=job.message.id)
                self._fetcher.late()

    def _refused(self, error: MQueueError) -> None:
        self._refusal = error
        self._stopping.retire()

    # ── stopping ──

    def _recycle(self, reason: str | None) -> None:
        if reason is not None and not self._stopping.began.is_set():
            log.info("the worker has run for long enough, stops", reason=reason, running=len(self._jobs))
            self._stopping.recycle()

    async def _look_at_memory(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._recycle(self._recycling.now())

    async def _wind_down(self) -> int:
        """Ends all that the worker still has. Returns how many settles could not be told."""
        self._fetcher.close()
        for jobs in self._gatherer.give_up():
            self._released(job_of(jobs))
        self._presence.stopping()
        return await self._winding_down.run(self._fetcher)

    def _log_start(self) -> None:
        names, topics = sorted(task.name for task in self._app), [str(s) for s in self._sources]
        log.info("started", worker=self.name, broker=self._endpoint.url, topics=topics, tasks=names, concurrency=self._concurrency)


def _from_thread(loop: asyncio.AbstractEventLoop, tell: Callable[..., None], *args: Job) -> None:
    try:
        loop.call_soon_threadsafe(tell, *args)
    except RuntimeError:
        pass  # the loop is closed, so the worker is gone
