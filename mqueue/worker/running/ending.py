"""A job ends by what its handler made of it, and by what an interrupt makes of that. It is decided here and nowhere
else.

A job may be interrupted for several reasons, before its handler ends or while that still runs. The first of them, in
the order of `Interrupt`, decides:

    LOST        nothing is settled: the receipt is no longer current, and another may be running the job
    CANCELLED   a cancel, so that it is not tried again
    STOPPING    a release, which spends no attempt, whatever the handler raised as it was stopped; but for what it
                meant: a Bury, a Snooze, a job that no run can help
    OVERDUE     a failure by TimeLimit, whatever the handler raised; its policy may name that

A handler that returns is done, though it was told to end; only what is lost is lost. An item of a batch has the
interrupts of its batch beside its own: nobody told each of them that the batch ran for too long.
"""

from collections.abc import Callable, Sequence, Set

from mqueue.worker.running.outcome import CANCELLED, RELEASED, Outcome, decide
from mqueue.worker.tasks.job import Interrupt, Job
from mqueue.worker.tasks.signals import TimeLimit

NOT_WANTED = frozenset({Interrupt.LOST, Interrupt.CANCELLED})  # nobody waits for the job here, or anywhere


def ending(interrupts: Set[Interrupt], ran: Outcome, ran_too_long: Callable[[], Outcome]) -> Outcome | None:
    """Decides what is settled of a job; None: nothing is. `ran`: by its handler alone. `ran_too_long()`: by its limit
    of time.
    """
    match min(interrupts, default=None):
        case None:
            return ran
        case Interrupt.LOST:
            return None
        case _ if ran.kind == "ack":
            return ran
        case Interrupt.CANCELLED:
            return CANCELLED
        case Interrupt.STOPPING:
            return ran if ran.meant else RELEASED
        case _:
            return ran_too_long()


def endings(job: Job, ran: Sequence[Outcome], jitter: Callable[[], float]) -> Sequence[Outcome | None]:
    """Decides what is settled of each of its members, in their order, as `ran` is."""
    if job.batch is None and not job.interrupts:  # this is so nearly always, and costs nothing
        return ran
    return [_of_member(each, job.interrupts, of_each, jitter) for each, of_each in zip(job.members, ran, strict=True)]


def _of_member(job: Job, of_all: Set[Interrupt], ran: Outcome, jitter: Callable[[], float]) -> Outcome | None:
    return ending(job.interrupts | of_all, ran, lambda: too_long(job, jitter()))


def too_long(job: Job, chance: float) -> Outcome:
    """The job fails by its `max_run_time`."""
    limit = TimeLimit(f"the job ran longer than its max_run_time={job.task.max_run_time} s: it was cancelled")
    return decide(limit, retry=job.task.retry, attempt=job.message.attempt, chance=chance)


def of_batch(members: Sequence[Job]) -> frozenset[Interrupt]:
    """Sums up its members' interrupts for a batch: it goes on until none of its items is wanted here."""
    if all(Interrupt.LOST in each.interrupts for each in members):
        return frozenset({Interrupt.LOST})
    return frozenset({Interrupt.CANCELLED} if all(each.interrupts & NOT_WANTED for each in members) else ())
