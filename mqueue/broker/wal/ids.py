"""Two kinds of numbers are never used twice: message ids, and the sequence numbers of a broker's batches.

    id        = 41 bits of ms since 2024 | 10 of node | 12 of count within the ms      63 bits, growing
    sequence  = start count << 40 | counter

Ids never go back, whatever the wall clock does: a *tick* (ms << 12 | count) only moves on, past the clock when need be.
Across restarts too: ids are made only below a floor that is durable in the identity, and a new process begins at that
floor.
"""

from typing import Protocol

from mqueue.clock import Clock

EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
RESERVE_MS = 10_000
NODE_BITS, COUNT_BITS, MS_BITS = 10, 12, 41
_COUNTS = 1 << COUNT_BITS


def node_of(id: int) -> int:
    """Returns the number of the broker that made this id."""
    return id >> COUNT_BITS & (1 << NODE_BITS) - 1


class Floor(Protocol):
    """What ids need of an `Identity`."""

    @property
    def id_floor_ms(self) -> int: ...

    def reserve_ids(self, until_ms: int) -> None: ...


class IdSource:
    """Ids of one node. `take` is for one thread."""

    def __init__(self, node: int, identity: Floor, clock: Clock) -> None:
        if not 0 <= node < 1 << NODE_BITS:
            raise ValueError(f"node number {node}: 0 to {(1 << NODE_BITS) - 1}")
        self._node = node << COUNT_BITS
        self._identity = identity
        self._clock = clock
        self._tick = identity.id_floor_ms << COUNT_BITS  # the next one free

    def take(self, n: int) -> list[int]:
        """Returns `n` new ids, growing. It blocks on the disk only when `renew` did not come in time. Raises
        OverflowError past the year 2093.
        """
        if n == 0:
            return []  # a batch without enqueues must not need room on the disk
        first = max(self._tick, self._now_ms() << COUNT_BITS)
        end = first + n
        if end > self._identity.id_floor_ms << COUNT_BITS:
            self._reserve(end >> COUNT_BITS)
        self._tick = end
        ids: list[int] = []
        while first < end:
            stop = min(end, (first | (_COUNTS - 1)) + 1)
            base = first >> COUNT_BITS << NODE_BITS + COUNT_BITS | self._node
            count = first & (_COUNTS - 1)
            ids.extend(range(base + count, base + count + stop - first))
            first = stop
        return ids

    def begin_at(self, floor_ms: int) -> None:
        """Makes the next ids for this millisecond (since 2024) or a later one: others used those before it."""
        self._tick = max(self._tick, floor_ms << COUNT_BITS)

    def renew(self) -> None:
        """Reserve ahead when less than half is left, so that `take` need not: call it every 3 s or so, in a thread."""
        now = max(self._now_ms(), self._tick >> COUNT_BITS)
        if self._identity.id_floor_ms - now < RESERVE_MS // 2:
            self._reserve(now)

    def _reserve(self, ms: int) -> None:
        if ms + RESERVE_MS >= 1 << MS_BITS:
            raise OverflowError("ids end in the year 2093: is the clock right?")
        self._identity.reserve_ids(ms + RESERVE_MS)

    def _now_ms(self) -> int:
        return max(0, self._clock.wall_us() // 1000 - EPOCH_MS)
