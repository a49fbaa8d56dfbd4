"""Enqueued jobs wait in memory until the test runs those that are due."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from mqueue import message as m
from mqueue import wire
from mqueue.schedule import moment
from mqueue.testing import handlers
from mqueue.testing.clock import ManualClock
from mqueue.testing.enqueued import Enqueued, Recorder
from mqueue.testing.memory.broker import MemoryBroker
from mqueue.testing.memory.stored import Stored
from mqueue.testing.periodic import Periodic
from mqueue.testing.redirect import task_of
from mqueue.worker.arguments.codec import Misfit
from mqueue.worker.running.outcome import Outcome, decide, done
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.job import Job
from mqueue.worker.tasks.task import App, Task

JOBS_MAX = 10_000  # one drain runs no more


@dataclass(frozen=True, slots=True)
class Drained:
    """The runs of one drain ended like this: returned, failed and to be tried again, put off by Snooze, dead."""

    done: int = 0
    failed: int = 0
    snoozed: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class DeadJob:
    """`error` has type, message and traceback, as in its dead letter; `raised` is the error itself, None
    where the lease ended.
    """

    job: Enqueued
    error: str
    raised: BaseException | None

    def __str__(self) -> str:
        return f"{self.job}: {self.error.partition(chr(10))[0]}"


class DeadJobs(AssertionError):
    """A drain made dead letters that the test did not expect."""

    def __init__(self, jobs: Sequence[DeadJob]) -> None:
        super().__init__("\n".join(["jobs became dead letters (drain(dead_ok=True) lets them):", *(f"    {job}" for job in jobs)]))
        self.jobs = jobs


class Manual(Recorder):
    """`broker` has the messages, with the methods of `Client`; `clock` has its time."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.broker = MemoryBroker(clock)
        self._by_id: dict[int, tuple[App, Enqueued]] = {}
        self._raised: dict[int, BaseException] = {}
        self._periodic: dict[str, Periodic] = {}

    # ── enqueue ──

    def carry(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        for item in items:
            task_of(app, item)
        ids = self.broker.enqueue_many(items)
        for id, item in zip(ids, items, strict=True):
            if id not in self._by_id:  # else its idempotency key is known
                self._by_id[id] = app, self.record(app, id, item)
        return ids

    async def carry_async(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return self.carry(app, items)

    def schedule(self, *tasks: Task[..., Any]) -> None:
        """From now on these periodic tasks are enqueued at their times, as `drain` finds the clock past them.

        Raises ValueError for a task without `cron=` or `every=`, ModuleNotFoundError for `cron=` where nothing here can
        read it.
        """
        for task in tasks:
            if task.periodic is None:
                raise ValueError(f"task {task.name} is not periodic: it has neither cron= nor every=")
            self._periodic[task.name] = Periodic(task, task.periodic, self.clock.wall_us())

    def _tick(self) -> None:
        """Does what the broker's scheduler does; no middleware sees it."""
        for periodic in self._periodic.values():
            items = periodic.due(self.clock.wall_us())
            for id, item in zip(self.broker.enqueue_many(items), items, strict=True):
                self._by_id[id] = periodic.task.app, self.record(periodic.task.app, id, item)

    # ── look ──

    @property
    def waiting(self) -> list[Enqueued]:
        """These jobs have not ended: they are due, delayed or leased."""
        return [self._by_id[s.id][1] for s in self.broker.live() if s.id in self._by_id]

    @property
    def dead(self) -> list[DeadJob]:
        return [self._dead_job(s) for s in self.broker.dead() if s.id in self._by_id]

    def state_of(self, id: int) -> wire.Status | None:
        return self.broker.message(id)

    def result_of(self, id: int) -> bytes:
        return self.broker.result(id)

    def cancel(self, id: int) -> wire.Cancel:
        return self.broker.cancel(id)

    def dead_letters(self, topic: str, *, namespace: str, limit: int, after: int) -> list[wire.DeadItem]:
        return self.broker.dead_letters(topic, namespace=namespace, limit=limit, after=after)

    # ── run ──

    def drain(self, *, dead_ok: bool = False, to_the_end: bool = False) -> Drained:
        """Run what is due, and what that enqueues or makes due, in the broker's order: least (priority,
        due time, id) first.

        A job that fails waits its backoff, by its policy and the clock. `to_the_end`: move the clock to whatever
        comes next, until nothing waits. Raises DeadJobs where jobs became dead letters, unless `dead_ok`;
        RuntimeError after JOBS_MAX runs.
        """
        steps = self._draining(dead_ok, to_the_end)
        error: BaseException | None = None
        try:
            job = next(steps)
            while True:
                error = handlers.run(job)
                job = steps.send(error)
        except StopIteration as end:
            return _drained(end)

    async def drain_async(self, *, dead_ok: bool = False, to_the_end: bool = False) -> Drained:
        """This is `drain`, with `async def` handlers on this event loop."""
        steps = self._draining(dead_ok, to_the_end)
        try:
            job = next(steps)
            while True:
                error = await handlers.run_async(job)
                job = steps.send(error)
        except StopIteration as end:
            return _drained(end)

    def _draining(self, dead_ok: bool, to_the_end: bool) -> Generator[Job, BaseException | None, Drained]:
        """Yields jobs, wants what their handlers raised, and returns the counts."""
        counts: Counter[str] = Counter()
        dead_before = {s.id for s in self.broker.dead()}
        runs = 0
        error: BaseException | None
        while (stored := self._next(to_the_end)) is not None:
            if (runs := runs + 1) > JOBS_MAX:
                raise RuntimeError(f"{JOBS_MAX:,} jobs were run, and more are due: does one always enqueue another, or a schedule tick on?")
            message = self.broker.lease(stored, m.LEASE_MAX_S)  # as long as a worker would renew it: a handler may move the clock
            app, enqueued = self._by_id[stored.id]
            try:
                job = handlers.job_of(message, *task_of(app, enqueued.message))
            except (LookupError, Misfit) as misfit:
                outcome, error = decide(misfit), misfit
            else:
                error = yield job
                if error is not None and handlers.is_of_the_test(error):
                    raise error
                if error is None:
                    outcome = done(job.result, job.task.result_ttl)
                else:
                    outcome = decide(error, retry=job.task.retry, attempt=message.attempt)
            counts[self._settle(stored, message, outcome, error)] += 1
        fresh = [self._dead_job(s) for s in self.broker.dead() if s.id not in dead_before and s.id in self._by_id]
        if fresh and not dead_ok:
            raise DeadJobs(fresh) from fresh[0].raised
        return Drained(**counts)

    def _next(self, to_the_end: bool) -> Stored | None:
        """Returns the job to run now. Where nothing is due the clock moves: to what waits, or to the tick before it."""
        self._tick()
        while (due := self.broker.first_due(self._by_id)) is None and to_the_end:
            waiting = self.broker.next_us(self._by_id)
            if waiting is None:
                return None
            ticks = [tick for periodic in self._periodic.values() if (tick := periodic.next_us) is not None]
            self.clock.move_to(moment(min([waiting, *ticks])))
            self._tick()
        return due

    def _settle(self, stored: Stored, message: wire.Message, outcome: Outcome, error: BaseException | None) -> str:
        """Settles the delivery, and returns the name of its count."""
        self.broker.settle(outcome.kind, outcome.settle(message))
        if error is not None:
            self._raised[stored.id] = error
        if outcome.kind == "ack":
            return "done"
        if stored.dead:
            return "dead"
        return "snoozed" if outcome.kind == "release" else "failed"

    def _dead_job(self, s: Stored) -> DeadJob:
        return DeadJob(self._by_id[s.id][1], s.error or "", self._raised.get(s.id))


def _drained(end: StopIteration) -> Drained:
    assert isinstance(end.value, Drained)
    return end.value
