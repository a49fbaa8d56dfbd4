"""A ShardClock is what this broker knows of the one clock of a shard: two bounds, which each answer of a store narrows.
It is pure, but for the monotonic clock that it is given.

A message that is due at once is stamped with the most that the shard clock may be: never behind what was due before its
request came, at however quiet a broker. Order is by when a message was enqueued, and no stamp may come before it.
"""

from collections.abc import Callable

FRESH_S = 3.0  # so long an answer is trusted: the clock of Redis' host may jump meanwhile
DOUBT_S = 5.0  # so long none is, after a jump or in a new epoch: the clock may be catching up
SURE_US = 500_000  # bounds that are further apart say too little
DRIFT = 2e-4  # two good clocks go apart by so much at most


class ShardClock:
    """`due_clock`: what was due by the last answer, and is for everybody since. `frontier`: T then. `told`: the shard
    clock then.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._least = self._most = 0  # shard clock minus monotonic, in µs,
        self._at = 0.0  # as of then
        self._asked_at = self._doubted_until = float("-inf")
        self.due_clock = self.frontier = self.told = 0

    def saw(self, due_clock: int, clock: int, asked_at: float, frontier: int | None = None) -> None:
        """Takes the clocks that an answer told, and T where it told that. `asked_at`: when it was asked, by the
        monotonic clock.
        """
        now = self._monotonic()
        least, most = clock - _us(now), clock - _us(asked_at)
        slack = int((now - self._at) * 1e6 * DRIFT)
        if least > self._most + slack or most < self._least - slack:
            self._doubted_until = now + DOUBT_S if self.told else now
            self._least, self._most = least, most
        else:
            self._least, self._most = max(least, self._least - slack), min(most, self._most + slack)
        self._at, self._asked_at, self.told = now, max(asked_at, self._asked_at), clock
        self.due_clock = max(self.due_clock, due_clock)
        if frontier is not None:
            self.frontier = frontier

    def begin_epoch(self) -> None:
        """Forgets what was due in the epoch that ended: it may be past the clock of this one, which may catch up."""
        self.due_clock = self.frontier = 0
        self._doubted_until = self._monotonic() + DOUBT_S

    def least_us(self) -> int:
        """Returns the shard clock, as far as this broker can tell between two answers: at least."""
        return self._least + _us(self._monotonic())

    def most_us(self) -> int:
        """Returns it at most: the last answers may have been late. A delay counted from `least_us` would end early by
        as much.
        """
        now = self._monotonic()
        return self._most + _us(now) + int((now - self._at) * 1e6 * DRIFT)

    def at_once(self) -> int | None:
        """Returns what a message that is due at once is stamped with. None where that cannot be told without asking:
        the last answer is old, or in doubt, or the time frontier it told has been reached.
        """
        now = self._monotonic()
        most = max(self.most_us(), self.due_clock)
        if now - self._asked_at > FRESH_S or now < self._doubted_until or self._most - self._least > SURE_US:
            return None
        return most if most < self.frontier else None


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
