"""A circuit breaker leaves a store alone for a while after failures in a row, then tries it by one call. It is pure but
for the clock.

closed     calls go through; FAILURES in a row open it
open       calls are refused at once, for OPEN_S
half-open  one call goes through: its success closes it, its failure opens it again
"""

from mqueue.clock import Clock

FAILURES = 5
OPEN_S = 1.0
TRIAL_S = 5.0  # a trial that never ends is taken for a failure


class Circuit:
    def __init__(self, clock: Clock, failures: int = FAILURES, open_s: float = OPEN_S) -> None:
        self._clock = clock
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._closed_until = float("-inf")  # no call before then, once it is open

    @property
    def is_open(self) -> bool:
        return self._failures >= self._limit

    def allows(self) -> bool:
        """May a call be made now? Where it is half-open: only this one."""
        if not self.is_open:
            return True
        now = self._clock.monotonic()
        if now < self._closed_until:
            return False
        self._closed_until = now + TRIAL_S
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self.is_open:
            self._closed_until = self._clock.monotonic() + self._open_s
