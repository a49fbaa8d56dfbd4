"""A handler raises one of these to say how its job ends; others stand for a handler whose process is gone."""

from datetime import timedelta

from mqueue.worker.tasks.retry import AFTER_MAX_S


class Snooze(Exception):
    """Raise it in a task to have the job delivered again after `seconds`, say since it came too early. No attempt is
    spent. With 0 all jobs of its priority that are due go first.
    """

    def __init__(self, seconds: float | timedelta) -> None:
        seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        super().__init__(f"{seconds} s")
        if not 0 <= seconds <= AFTER_MAX_S:
            raise ValueError(f"Snooze({seconds}): seconds from 0 to {AFTER_MAX_S}")
        self.seconds = seconds


class RateLimited(Exception):
    """Raise it in a task to have the job tried again after `retry_after` seconds: they count, not its policy's.

    It is a failure, and spends an attempt.
    """

    def __init__(self, reason: str = "rate limited", *, retry_after: float | timedelta) -> None:
        super().__init__(reason)
        retry_after = retry_after.total_seconds() if isinstance(retry_after, timedelta) else retry_after
        if not 0 <= retry_after <= AFTER_MAX_S:
            raise ValueError(f"RateLimited(retry_after={retry_after}): seconds from 0 to {AFTER_MAX_S}")
        self.retry_after = retry_after


class Bury(Exception):
    """Raise it in a task to send the job to the dead letters at once: trying again cannot help."""


class NeverRan(TypeError):
    """The function gave back what was to be run, and nothing ran it."""


class ProcessEnded(Exception):
    """The process that a job ran in is gone; the message says why. It is a failure like others: it spends an attempt,
    and a policy may name it.
    """


class TimeLimit(ProcessEnded):
    """It ran longer than its task's `time_limit` or `max_run_time`."""


class MemoryLimit(ProcessEnded):
    """Its process held more than its task's `memory_limit_mb`."""


for _public in (Snooze, RateLimited, Bury, ProcessEnded, TimeLimit, MemoryLimit):
    _public.__module__ = "mqueue"  # dead letters and trackers of errors name them as users import them, wherever they move
