"""A topic belongs to the shard of its slot: FNV-1a over namespace and topic gives one of 16,384 slots, and the stored
slot map the shard.
"""

from collections.abc import Sequence

from mqueue.message import TopicName

SLOTS = 16_384


def fnv1a_32(data: bytes) -> int:
    h = 0x811C9DC5
    for byte in data:
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def slot(name: TopicName) -> int:
    return fnv1a_32((name.namespace + name.topic).encode()) % SLOTS


class SlotMap:
    """Remembers what it has worked out, for at most `REMEMBERED` topics."""

    REMEMBERED = 100_000

    def __init__(self, slots: Sequence[int]) -> None:
        if len(slots) != SLOTS:
            raise ValueError(f"a slot map has {SLOTS} slots, not {len(slots)}")
        self._slots = slots
        self._known: dict[TopicName, int] = {}

    def shard(self, name: TopicName) -> int:
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= self.REMEMBERED:
                self._known.clear()
            known = self._known[name] = self._slots[slot(name)]
        return known
