"""What became of a job. A pure function turns result or exception into an outcome; the fetcher tells the broker."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

from msgspec import structs

from mqueue import message as m
from mqueue import wire
from mqueue.worker.arguments.codec import BadResult, Misfit
from mqueue.worker.tasks.retry import AFTER_MAX_S, Retry

SUMMARY_MAX = 1024  # bytes of an error's type and message; the rest is the traceback's tail
CUT = "…\n"


class Snooze(Exception):
    """Raise it in a task to have the job delivered again after `seconds`: too early, say. No attempt is spent."""

    def __init__(self, seconds: float | timedelta) -> None:
        seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        super().__init__(f"{seconds} s")
        if not 0 <= seconds <= AFTER_MAX_S:
            raise ValueError(f"Snooze({seconds}): seconds from 0 to {AFTER_MAX_S}")
        self.seconds = seconds


class RateLimited(Exception):
    """Raise it in a task to have the job tried again after `retry_after` seconds, whatever its policy: they were asked for.

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
    """The process that a job ran in is gone; the message says why. A failure like others: it spends an attempt, a policy may name it."""


class TimeLimit(ProcessEnded):
    """It ran longer than its task's `time_limit` or `max_run_time`."""


class MemoryLimit(ProcessEnded):
    """Its process held more than its task's `memory_limit_mb`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: m.Kind
    error: str | None = None
    retry_after: float | None = None
    result: bytes | None = None
    result_ttl: float | None = None

    def settle(self, message: wire.Message) -> wire.PollSettle:
        return wire.PollSettle(
            id=message.id,
            namespace=message.namespace,
            topic=message.topic,
            receipt=message.receipt,
            kind=self.kind,
            error=self.error,
            retry_after=self.retry_after,
            result=self.result,
            result_ttl=self.result_ttl,
        )


DONE = Outcome("ack")
RELEASED = Outcome("release")
CANCELLED = Outcome("cancel")


def decide(
    error: BaseException | None, *, retry: Retry | None = None, attempt: int = 1, chance: float = 0.0, stopping: bool = False
) -> Outcome:
    """`error`: what the handler raised in its `attempt`-th delivery, or None; `retry`: the task's policy; `chance` in [0, 1).

    What a handler raises because the worker stops it is a release, whatever it is; but for a Bury, which is meant. Any other cancellation is a
    failure. Without a policy the broker's backoff counts.
    Never raises, whatever the error's class does when it is asked: a job without an outcome would keep its slot for ever.
    """
    match error:
        case None:
            return DONE
        case Misfit() | NeverRan() | BadResult():
            return Outcome("bury", _cut(str(error)))
        case Bury():
            return Outcome("bury", describe(error))
        case Snooze() if (seconds := _seconds(error, "seconds")) is not None:
            return Outcome("release", None, seconds)
        case _ if stopping:
            return RELEASED
        case _:
            return _failed(error, retry, attempt, chance)


def _failed(error: BaseException, retry: Retry | None, attempt: int, chance: float) -> Outcome:
    if isinstance(error, RateLimited):
        return Outcome("nack", describe(error), _seconds(error, "retry_after"))
    if retry is None:
        return Outcome("nack", describe(error))
    try:
        if not retry.wants(error):
            return Outcome("bury", describe(error))
    except Exception:  # isinstance asks the classes: it is retried then
        pass
    return Outcome("nack", describe(error), retry.delay_s(attempt, chance))


def done(result: bytes | None, ttl: float) -> Outcome:
    return DONE if result is None else Outcome("ack", result=result, result_ttl=ttl)


def too_large(settle: wire.PollSettle, detail: str) -> wire.PollSettle:
    """In place of an ack whose result the broker does not keep."""
    return structs.replace(settle, kind="bury", error=_cut(detail), result=None, result_ttl=None)


def unknown(name: str) -> Outcome:
    """A newer worker may know it, so it is tried again."""
    return Outcome("nack", _cut(f"unknown task {name}: this worker's modules do not define it"))


def misplaced(name: str, topic: str) -> Outcome:
    """A worker whose modules have it otherwise may run it."""
    return Outcome("nack", _cut(f"topic {topic} is for batches of another task than {name}"))


def _seconds(error: BaseException, name: str) -> float | None:
    """None also for what a class of the task's own has made of it."""
    try:
        seconds = float(getattr(error, name))
    except Exception:
        return None
    return seconds if 0 <= seconds <= AFTER_MAX_S else None


def summary(error: BaseException) -> str:
    """Type and message, one line or more, at most SUMMARY_MAX bytes."""
    return _cut(_format(lambda: traceback.format_exception_only(error), error).strip())


def describe(error: BaseException) -> str:
    """Type and message, then the traceback: at most ERROR_MAX bytes, of a longer traceback its end, where the mistake is."""
    head = summary(error)
    if isinstance(error, ProcessEnded):  # its traceback is the worker's own
        return head
    trace = _format(lambda: traceback.format_exception(type(error), error, _own(error.__traceback__)), error)
    return f"{head}\n\n{bounded(trace, m.ERROR_MAX - len(head.encode()) - 2)}"


def bounded(trace: str, room: int = m.ERROR_MAX) -> str:
    """At most `room` bytes of it: the end."""
    encoded = _encode(trace)
    if len(encoded) > room:
        encoded = CUT.encode() + encoded[-(room - len(CUT.encode())) :]
    return encoded.decode(errors="ignore").rstrip()


def _format(lines: Callable[[], list[str]], error: BaseException) -> str:
    """Some errors break as they are formatted: their type must do."""
    try:
        return "".join(lines())
    except Exception:
        return type(error).__name__


def _cut(text: str) -> str:
    return _encode(text)[:SUMMARY_MAX].decode(errors="ignore")


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Without the runtime's frame."""
    return trace.tb_next if trace is not None and trace.tb_next is not None else trace


def _encode(text: str) -> bytes:
    """UTF-8 that PostgreSQL takes: lone surrogates and NUL spelled out."""
    return text.encode(errors="backslashreplace").replace(b"\0", rb"\x00")
