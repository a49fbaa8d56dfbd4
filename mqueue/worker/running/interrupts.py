"""What takes a running job from its handler: another has its lease, it has run for too long, somebody has cancelled
it.
"""

from collections.abc import Sequence, Set

import structlog

from mqueue.worker.tasks.job import Job

log = structlog.get_logger("mqueue.worker")


class Interrupts:
    """On the worker's loop. `jobs`: those that run."""

    def __init__(self, jobs: Set[Job]) -> None:
        self._jobs = jobs

    def lost(self, job: Job) -> None:
        if job.ended:
            return
        log.warning("lease lost, the job runs elsewhere", task=job.task.name, id=job.message.id)
        job.lost = True
        self._cancel_if_over(self._running(job))

    def overdue(self, job: Job) -> None:
        """The lease runs out: what the handler has not ended until then nobody waits for."""
        if job.ended:
            return
        log.warning("job runs too long, its lease is let go", task=job.task.name, id=job.message.id, max_run_time=job.task.max_run_time)
        job.overdue = True
        running = self._running(job)
        if running is not job and running.overdue:  # as its others
            return
        running.overdue = True
        if (cancel := running.cancel) is not None:
            cancel()

    def _running(self, job: Job) -> Job:
        """It, or the batch that it is in."""
        return next((each for each in self._jobs if each.batch and job in each.batch), job) if job.task.batch else job

    def unwanted(self, ids: Sequence[int]) -> None:
        """Somebody has cancelled these messages; most may be other workers'."""
        named = set(ids)
        for job in [job for job in self._jobs if not job.ended and not job.unwanted]:
            for each in job.members:
                if each.message.id in named and not each.unwanted:
                    log.info("job cancelled", task=job.task.name, id=each.message.id)
                    each.unwanted = True
            if any(each.unwanted for each in job.members):
                self._cancel_if_over(job)

    def _cancel_if_over(self, job: Job) -> None:
        """A batch goes on for its other items: until nobody wants any of them here."""
        if job.batch:
            job.lost = all(each.lost for each in job.batch)
            job.unwanted = not job.lost and all(each.lost or each.unwanted for each in job.batch)
        if (job.lost or job.unwanted) and (cancel := job.cancel) is not None:
            cancel()
