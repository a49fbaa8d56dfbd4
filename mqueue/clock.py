"""This is the only reader of time. Wall time is for people and tokens; the shard clock decides what is
due (docs/design.md).
"""

import time
from typing import Protocol


class Clock(Protocol):
    def wall_us(self) -> int:
        """Returns microseconds since 1970, UTC. They may jump."""
        ...

    def monotonic(self) -> float:
        """Returns seconds since some fixed moment. They never go back."""
        ...


class SystemClock:
    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed_s() -> float:
    """Returns seconds since some fixed moment, those included in which the machine slept, where
    the system counts them.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
