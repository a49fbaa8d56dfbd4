"""This finds who comes next in the broker in memory, without a look at all there is.

It has two heaps of hints: who is due, by key, and who comes later, by time. Whatever changes a message leaves a new
hint (a lease leaves the one of its end when it begins); an old one that is no longer true is dropped when it comes up.
"""

from collections.abc import Callable, Container
from heapq import heappop, heappush

from mqueue.testing.memory.stored import Stored


class Order:
    """`find` gives a message by its id, None where it is gone."""

    def __init__(self, find: Callable[[int], Stored | None]) -> None:
        self._find = find
        self._due: list[tuple[int, int, int, int]] = []  # keys
        self._later: list[tuple[int, int]] = []  # µs since 1970, id

    def put(self, s: Stored, now_us: int) -> None:
        """This message has just been made, or changed."""
        if s.dead:
            return
        if s.state(now_us) == "ready":
            heappush(self._due, s.key)
        else:
            heappush(self._later, (s.comes_us, s.id))

    def first(self, now_us: int, among: Container[int]) -> Stored | None:
        """Returns the due message with the least key, of these ids."""
        while self._later and self._later[0][0] <= now_us:
            _, id = heappop(self._later)
            if (s := self._find(id)) is not None and s.state(now_us) == "ready":
                heappush(self._due, s.key)
        kept, found = [], None
        while self._due and found is None:
            key = heappop(self._due)
            s = self._find(key[-1])
            if s is not None and s.key == key and s.state(now_us) == "ready":
                kept.append(key)
                found = s if s.id in among else None
        for key in kept:
            heappush(self._due, key)
        return found

    def next_us(self, among: Container[int]) -> int | None:
        """Returns when the next of these ids that is delayed or leased comes, if nothing becomes of it before."""
        kept, found = [], None
        while self._later and found is None:
            hint = us, id = heappop(self._later)
            s = self._find(id)
            if s is not None and not s.dead and s.comes_us == us:
                kept.append(hint)
                found = us if id in among else None
        for hint in kept:
            heappush(self._later, hint)
        return found
