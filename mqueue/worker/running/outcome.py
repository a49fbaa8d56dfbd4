"""A handler's result or exception becomes an outcome, by a pure function.

What interrupts make of that is decided in `ending.py`; the fetcher tells the broker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from mqueue import message as m
from mqueue import wire
from mqueue.worker.arguments.codec import BadResult, Misfit
from mqueue.worker.tasks.retry import AFTER_MAX_S, Retry
from mqueue.worker.tasks.signals import Bury, NeverRan, RateLimited, Snooze
from mqueue.worker.traces import cut, describe


@dataclass(frozen=True, slots=True)
class Outcome:
    """It is what the broker is told. `meant`: it holds though the worker stops the job, since that is not what caused
    it.
    """

    kind: m.Kind
    error: str | None = None
    retry_after: float | None = None
    result: bytes | None = None
    result_ttl: float | None = None
    meant: bool = field(default=False, compare=False)

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


def decide(error: BaseException | None, *, retry: Retry | None = None, attempt: int = 1, chance: float = 0.0) -> Outcome:
    """The outcome follows from what the handler raised in its `attempt`-th delivery. `error`: None where it returned;
    `retry`: the task's policy; `chance` in [0, 1).

    Without a policy the broker's backoff counts. Never raises, whatever the error's class does when it is asked: a job
    without an outcome would keep its slot for ever.
    """
    match error:
        case None:
            return DONE
        case Misfit() | NeverRan() | BadResult():
            return Outcome("bury", cut(str(error)), meant=True)
        case Bury():
            return Outcome("bury", describe(error), meant=True)
        case Snooze() if (seconds := _seconds(error, "seconds")) is not None:
            return Outcome("release", None, seconds, meant=True)
        case _:
            return _failed(error, retry, attempt, chance)


def decide_each(error: BaseException, *, retry: Retry | None, attempts: Sequence[int], jitter: Callable[[], float]) -> list[Outcome]:
    """All of a batch's items failed by this error, each in its own attempt; it is formatted once."""
    first = decide(error, retry=retry, attempt=attempts[0], chance=jitter())
    if first.kind != "nack" or retry is None or isinstance(error, RateLimited):
        return [first] * len(attempts)
    return [first, *(replace(first, retry_after=retry.delay_s(attempt, jitter())) for attempt in attempts[1:])]


def _failed(error: BaseException, retry: Retry | None, attempt: int, chance: float) -> Outcome:
    if isinstance(error, RateLimited):
        return Outcome("nack", describe(error), _seconds(error, "retry_after"))
    if retry is None:
        return Outcome("nack", describe(error))
    try:
        if not retry.wants(error):
            return Outcome("bury", describe(error))
    except Exception:  # isinstance asks the error's classes, which may raise: the job is tried again then
        pass
    return Outcome("nack", describe(error), retry.delay_s(attempt, chance))


def done(result: bytes | None, ttl: float) -> Outcome:
    """The handler returned, perhaps with a result that its task keeps for `ttl` seconds."""
    return DONE if result is None else Outcome("ack", result=result, result_ttl=ttl)


def too_large(settle: wire.PollSettle, detail: str) -> wire.PollSettle:
    """Replaces an ack whose result the broker does not keep."""
    return structs.replace(settle, kind="bury", error=cut(detail), result=None, result_ttl=None)


def unknown(name: str) -> Outcome:
    """No task here has this name. A newer worker may know it, so it is tried again."""
    return Outcome("nack", cut(f"unknown task {name}: this worker's modules do not define it"))


def misplaced(name: str, topic: str) -> Outcome:
    """Its topic is for another task's batches here. A worker whose modules have it otherwise may run it."""
    return Outcome("nack", cut(f"topic {topic} is for batches of another task than {name}"))


def _seconds(error: BaseException, name: str) -> float | None:
    """Reads that attribute. None also for what a class of the task's own has made of it."""
    try:
        seconds = float(getattr(error, name))
    except Exception:
        return None
    return seconds if 0 <= seconds <= AFTER_MAX_S else None
