"""When a failed job is tried again, and how often. Pure; the jitter is passed in."""

from dataclasses import dataclass

from mqueue import backoff
from mqueue import message as m

AFTER_MAX_S = 100 * 365 * 86400  # what the broker takes
Errors = tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A task's policy: `@task(retry=Retry(max=5, base=2.0, never=(ValueError,)))`.

    `max`: retries before it is a dead letter, None for the broker's default. The first comes after `base` seconds, each next one
    after twice as long, up to `cap`; `jitter` (0 to 1) is the part of it by which chance may shorten it. An error is retried if it
    is one of `on` and none of `never`; any other makes the job a dead letter at once. Raises ValueError, TypeError.
    """

    max: int | None = None
    base: float = backoff.BASE_US / 1e6
    cap: float = backoff.CAP_US / 1e6
    jitter: float = backoff.SPREAD
    on: Errors = (BaseException,)
    never: Errors = ()

    def __post_init__(self) -> None:
        if self.max is not None and not 0 <= self.max <= m.RETRIES_MAX:
            raise ValueError(f"Retry(max={self.max}): 0 to {m.RETRIES_MAX}")
        if not 0 < self.base <= self.cap <= AFTER_MAX_S:
            raise ValueError(f"Retry(base={self.base}, cap={self.cap}): seconds above 0, the base not above the cap")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Retry(jitter={self.jitter}): 0 to 1")
        isinstance(None, self.on), isinstance(None, self.never)  # a TypeError now rather than at the first failure

    def wants(self, error: BaseException) -> bool:
        return isinstance(error, self.on) and not isinstance(error, self.never)

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds from the failure of this `attempt` (≥ 1) to the next; `chance` in [0, 1)."""
        return backoff.delay_us(attempt, chance, int(self.base * 1e6), int(self.cap * 1e6), self.jitter) / 1e6
