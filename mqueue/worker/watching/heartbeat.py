"""It renews the leases of running jobs, from a thread and a client of its own: a handler that blocks the loop keeps its
lease.

A lease is renewed at a third of its length, by the monotonic clock: the worker's wall clock may be anything. A job that
runs longer than its task may has its lease renewed no more: whatever its handler does, and though the loop be blocked,
it comes again elsewhere.
"""

import math
import threading
from collections.abc import Callable, Sequence

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.worker.tasks.job import Job
from mqueue.worker.traces import summary

RETRY_S = 0.5  # after a renewal that failed
TOGETHER_S = 0.1  # what is due this much later is renewed along with what is due
LOOK_S = 5.0  # at the longest between two looks

log = structlog.get_logger("mqueue.worker")


class Heartbeat:
    """It renews leases from a thread.

    `extend` is blocking. From the thread come `lost(job)`, when another delivery has the message or it is gone, and
    `overdue(job)`, when it has run for as long as it may, and `late()`, when leases were renewed late, or lost.
    """

    def __init__(
        self,
        extend: Callable[[Sequence[wire.ExtendItem]], list[wire.Verdict]],
        lost: Callable[[Job], None],
        clock: Clock,
        overdue: Callable[[Job], None] = lambda job: None,
        late: Callable[[], None] = lambda: None,
    ) -> None:
        self._extend = extend
        self._lost = lost
        self._overdue = overdue
        self._late = late
        self._clock = clock
        self._held: dict[Job, None] = {}
        self._wake = threading.Condition()
        self._next_look = 0.0
        self._stopped = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="mqueue-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """It stops without waiting for a renewal under way: the process may end at once."""
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def hold(self, job: Job) -> None:
        """The job is here: its lease is renewed from now on."""
        job.began = self._clock.monotonic()
        job.renew_at = job.began + job.lease / 3
        with self._wake:
            self._held[job] = None
            if job.renew_at < self._next_look:
                self._wake.notify()

    def limit(self, job: Job, seconds: float) -> None:
        """Its handler begins, and may take so long."""
        with self._wake:
            job.over_at = self._clock.monotonic() + seconds
            if job.over_at < self._next_look:
                self._wake.notify()

    def drop(self, job: Job) -> None:
        """Its settle has arrived, or there will be none."""
        with self._wake:
            self._held.pop(job, None)

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._wake:
                now = self._clock.monotonic()
                first = min((min(job.renew_at, job.over_at) for job in self._held), default=now + LOOK_S)
                self._next_look = max(now + pause, min(first, now + LOOK_S))
                if not self._stopped and self._next_look > now:
                    self._wake.wait(self._next_look - now)
                if self._stopped:
                    return
                now = self._clock.monotonic()
                over = [job for job in self._held if job.over_at <= now]
                for job in over:
                    if job.ended:  # it ended in time: its settle is on its way, and needs the lease
                        job.over_at = math.inf
                    else:
                        del self._held[job]
                due = [job for job in self._held if job.renew_at <= now + min(job.lease / 30, TOGETHER_S)]
            for job in over:
                if job.over_at < math.inf:
                    self._overdue(job)
            pause = 0.0 if self._renew(due[: m.BATCH_MAX]) else RETRY_S

    def _renew(self, jobs: list[Job]) -> bool:
        """Renews their leases. False when the broker could not be asked; the next try comes soon."""
        if not jobs:
            return True
        try:
            verdicts = self._extend([extension(job) for job in jobs])
            if len(verdicts) != len(jobs):
                raise Unavailable(f"{len(verdicts)} verdicts for {len(jobs)} leases")
        except Exception as error:  # no error may end this thread: every lease would end
            if not self._failing:
                log.warning("leases not renewed, trying on", jobs=len(jobs), error=summary(error))
            self._failing = True
            return False
        now = self._clock.monotonic()
        answered = [verdict.status == "ok" for verdict in verdicts]
        if not self._failing and any(_late(job, ok, now) for job, ok in zip(jobs, answered, strict=True)):
            self._late()  # of a broker that was away the worker can tell nothing
        self._failing = False
        for job, verdict in zip(jobs, verdicts, strict=True):
            job.renew_at = now + job.lease / 3
            if verdict.status != "ok":
                self.drop(job)
                self._lost(job)
        return True


def _late(job: Job, renewed: bool, now: float) -> bool:
    """Was its lease renewed in its last third only, or lost though the job runs?"""
    since = now - (job.renew_at - job.lease / 3)
    return since > job.lease * 2 / 3 or not (renewed or job.ended)


def extension(job: Job) -> wire.ExtendItem:
    """Asks for its lease again, as long as it was."""
    message = job.message
    return wire.ExtendItem(
        id=message.id, namespace=message.namespace, topic=message.topic, receipt=message.receipt, lease=job.lease
    )  # fmt: skip
