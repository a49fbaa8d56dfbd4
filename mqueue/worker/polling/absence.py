"""This notices that the loop did not turn: the process was stopped, its machine slept, a handler blocked it.

What was handed to this worker meanwhile may be another's by now, and done: it must not be begun without a look.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from mqueue.clock import elapsed_s

TURN_S = 0.25  # between two looks
KEPT = 64


class Absence:
    """It looks from the loop on whose thread it was made. `now`: seconds that go on while the machine sleeps."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = elapsed_s) -> None:
        self._loop = loop
        self.now = now
        self._turned_at = now()
        self._past: deque[tuple[float, float]] = deque(maxlen=KEPT)  # when one ended, and its seconds
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._turned_at = self.now()
        self._timer = self._loop.call_later(TURN_S, self._turn)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def longest_s(self, since: float) -> float:
        """Measures the longest one that was not over at `since`, in seconds; also one that is only just ending, of
        which the timer does not know yet.
        """
        return max([self._late_s(self.now()), *(seconds for ended, seconds in self._past if ended >= since)])

    def _late_s(self, now: float) -> float:
        late = now - self._turned_at - TURN_S
        return late if late > TURN_S else 0.0

    def _turn(self) -> None:
        now = self.now()
        if late := self._late_s(now):
            self._past.append((now, late))
        self._turned_at = now
        self._timer = self._loop.call_later(TURN_S, self._turn)
