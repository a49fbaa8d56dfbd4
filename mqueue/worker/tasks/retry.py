"""A policy decides when a failed job is tried again, and how often. It is pure: the jitter is passed in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from mqueue import backoff
from mqueue import message as m
from mqueue.worker.tasks import checks

AFTER_MAX_S = 100 * 365 * 86400  # what the broker takes
Errors = tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """This is a task's policy: `@task(retry=Retry(max=5, base=2.0, never=(ValueError,)))`.

    After `max` retries a job becomes a dead letter; None stands for the broker's default. The first retry comes after
    `base` seconds, each next one after twice as long, up to `cap`; chance may shorten each by the part `jitter` (0 to
    1). An error is retried if it is one of `on` and none of `never`; any other makes the job a dead letter at once.
    Raises ValueError, TypeError.
    """

    max: int | None = None
    base: float = backoff.BASE_US / 1e6
    cap: float = backoff.CAP_US / 1e6
    jitter: float = backoff.SPREAD
    on: type[BaseException] | Iterable[type[BaseException]] = (BaseException,)
    never: type[BaseException] | Iterable[type[BaseException]] = ()

    def __post_init__(self) -> None:
        if self.max is not None:
            checks.whole("Retry(max=…)", self.max, 0, m.RETRIES_MAX)
        for option in ("base", "cap", "jitter"):
            checks.number(f"Retry({option}=…)", getattr(self, option), "a number from 0 to 1" if option == "jitter" else "a number of seconds")
        if not 0 < self.base <= self.cap <= AFTER_MAX_S:
            raise ValueError(f"Retry(base={self.base}, cap={self.cap}): seconds above 0, the base not above the cap")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Retry(jitter={self.jitter}): 0 to 1")
        for option in ("on", "never"):
            object.__setattr__(self, option, checks.errors(f"Retry({option}=…)", getattr(self, option)))

    def wants(self, error: BaseException) -> bool:
        return isinstance(error, cast(Errors, self.on)) and not isinstance(error, cast(Errors, self.never))

    def delay_s(self, attempt: int, chance: float) -> float:
        """So many seconds pass from the failure of this `attempt` (≥ 1) to the next one; `chance` is in [0, 1)."""
        return backoff.delay_us(attempt, chance, int(self.base * 1e6), int(self.cap * 1e6), self.jitter) / 1e6
