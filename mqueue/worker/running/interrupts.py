"""Takes running jobs from their handlers: each is marked with the reason, and its handler is told if it can be.

What a job's reasons make of its outcome is decided when it ends (`ending.py`).
"""

from collections.abc import Callable, Sequence, Set

import structlog

from mqueue.worker.running.ending import NOT_WANTED, of_batch
from mqueue.worker.tasks.job import Interrupt, Job

log = structlog.get_logger("mqueue.worker")


class Interrupts:
    """It marks jobs on the worker's loop. `jobs`: those that run."""

    def __init__(self, jobs: Set[Job]) -> None:
        self._jobs = jobs

    def begin(self, job: Job, heard: Callable[[int], bool]) -> None:
        """The job is about to run. `heard(id)`: has this message been cancelled before it came?"""
        for each in job.members:
            if heard(each.message.id):
                each.interrupt(Interrupt.CANCELLED)
        if job.batch is not None:
            job.interrupts = of_batch(job.batch)

    def lost(self, job: Job) -> None:
        """Another delivery has its message, or the message is gone."""
        if job.ended:
            return
        log.warning("lease lost, the job runs elsewhere", task=job.task.name, id=job.message.id)
        job.interrupt(Interrupt.LOST)
        _let_go(self._running(job))

    def overdue(self, job: Job) -> None:
        """It has run for as long as it may, and its lease runs out: nobody waits for its handler after that."""
        if job.ended:
            return
        log.warning("job runs too long, its lease is let go", task=job.task.name, id=job.message.id, max_run_time=job.task.max_run_time)
        job.interrupt(Interrupt.OVERDUE)
        running = self._running(job)
        if running is not job and Interrupt.OVERDUE in running.interrupts:  # another of its items was told first
            return
        running.interrupt(Interrupt.OVERDUE)
        _cancel(running)

    def cancelled(self, ids: Sequence[int]) -> None:
        """Somebody has cancelled these messages; most may be other workers'."""
        named = set(ids)
        for job in [job for job in self._jobs if not job.ended and Interrupt.CANCELLED not in job.interrupts]:
            for each in job.members:
                if each.message.id in named and Interrupt.CANCELLED not in each.interrupts:
                    log.info("job cancelled", task=job.task.name, id=each.message.id)
                    each.interrupt(Interrupt.CANCELLED)
            if any(Interrupt.CANCELLED in each.interrupts for each in job.members):
                _let_go(job)

    def stopping(self, job: Job) -> bool:
        """The worker has no more time for it. False: its handler cannot be told, as a thread cannot be stopped."""
        for each in {job, *job.members}:
            each.interrupt(Interrupt.STOPPING)
        return _cancel(job)

    def _running(self, job: Job) -> Job:
        """Finds what runs: the job, or the batch that it is in."""
        return next((each for each in self._jobs if each.batch and job in each.batch), job) if job.task.batch else job


def _let_go(job: Job) -> None:
    """Its handler is told to end where nobody wants it here; a batch goes on for its other items."""
    if job.batch is not None:
        job.interrupts = (job.interrupts - NOT_WANTED) | of_batch(job.batch)
    if job.interrupts & NOT_WANTED:
        _cancel(job)


def _cancel(job: Job) -> bool:
    """A handler on the loop gets a CancelledError, a process is asked to end or is killed. False: there is no way to
    tell it.
    """
    if (cancel := job.cancel) is None:
        return False
    cancel()
    return True
