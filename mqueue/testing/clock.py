"""This clock stands still until a test moves it."""

from datetime import datetime, timedelta

from mqueue.clock import SystemClock
from mqueue.schedule import EPOCH, moment

MICROSECOND = timedelta(microseconds=1)


class ManualClock:
    """It is `mqueue.clock.Clock` for tests. It begins at the present time, or at `start_us` (µs since 1970),
    and never goes back.
    """

    def __init__(self, start_us: int | None = None) -> None:
        self._us = SystemClock().wall_us() if start_us is None else start_us

    @property
    def now(self) -> datetime:
        return moment(self._us)

    def advance(self, seconds: float) -> None:
        """Moves the clock on. Raises ValueError below 0."""
        if not seconds >= 0:
            raise ValueError(f"advance({seconds}): this clock never goes back")
        self._us += round(seconds * 1e6)

    def move_to(self, moment: datetime) -> None:
        """Moves the clock to this time. Raises ValueError for one that is over, or has no zone."""
        if moment.tzinfo is None:
            raise ValueError(f"move_to({moment!r}): it has no time zone")
        target = (moment - EPOCH) // MICROSECOND
        if target < self._us:
            raise ValueError(f"move_to({moment}): this clock never goes back, and is at {self.now}")
        self._us = target

    def wall_us(self) -> int:
        return self._us

    def monotonic(self) -> float:
        return self._us / 1e6
