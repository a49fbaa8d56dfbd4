"""A worker that does not renew its leases in time has more jobs than it can hold: it fetches for fewer slots.

Each time it is seen, the slots are halved; then they double again and again, for as long as it is not seen.
"""

SAME_S = 1.0  # what is late within this time is one sign: it was fetched before
GROW_S = 10.0


class Pace:
    """It says for how many of `size` slots may be fetched, at `now` of the loop's clock."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._base = size
        self._since = float("-inf")  # of the base
        self.slowed = False

    def late(self, now: float) -> bool:
        """Leases were renewed late, or not at all. Is this news?"""
        if self.slowed and now < self._since + SAME_S:
            return False
        self._base, self._since, self.slowed = max(1, self.limit(now) // 2), now, True
        return True

    def limit(self, now: float) -> int:
        if not self.slowed:
            return self._size
        grown = min(int((now - self._since) / GROW_S), self._size.bit_length())  # so often it has doubled
        return min(self._size, self._base << grown)

    def recovered(self, now: float) -> bool:
        """Is this the first look since all slots may be used again?"""
        if not self.slowed or now < self._since + GROW_S or self.limit(now) < self._size:
            return False
        self.slowed = False
        return True
