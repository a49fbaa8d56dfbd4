"""Signals that come within a second are one: a process manager may tell a whole group, and its parent as well, who
passes it on. Only who says it again later is impatient.
"""

from collections.abc import Callable

from mqueue.clock import elapsed_s

SAME_S = 1.0


class Repeats:
    """It counts what was said, for one process. `now`: seconds that go on."""

    def __init__(self, now: Callable[[], float] = elapsed_s) -> None:
        self._now = now
        self._counted_at = float("-inf")
        self._count = 0

    def heard(self) -> int | None:
        """It was said: for the how many-th time? None: it is the same as just before."""
        now = self._now()
        if now < self._counted_at + SAME_S:
            return None
        self._counted_at = now
        self._count += 1
        return self._count
