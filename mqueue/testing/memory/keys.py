"""Idempotency keys promise this in the broker in memory: one key is one message, for a day."""

import hashlib
from collections.abc import Sequence

import msgspec

from mqueue import message as m
from mqueue import wire
from mqueue.clock import Clock
from mqueue.errors import KeyReused
from mqueue.testing.memory.stored import LEASE_S, RETRIES

KEY_S = 86_400  # as `mqueue broker` has it by default
Key = tuple[m.TopicName, str]

_pack = msgspec.msgpack.encode


class Keys:
    """Each key belongs to its topic. Past its time it is free again, whatever has become of the message."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Key, tuple[int, bytes, int]] = {}  # id, hash of the message that had it first, until when (µs since 1970)

    def check(self, items: Sequence[wire.EnqueueItem]) -> None:
        """Raises KeyReused, naming the item, for a key that another message has had, in this request or before."""
        here: dict[Key, bytes] = {}
        for index, item in enumerate(items):
            if (key := _key(item)) is None:
                continue
            digest = _digest(item)
            known = self._find(key)
            if here.setdefault(key, digest if known is None else known[1]) != digest:
                raise KeyReused("this idempotency key was used with another message", item=index, field="idempotency_key")

    def find(self, item: wire.EnqueueItem) -> int | None:
        """Returns the message that has its key."""
        key = _key(item)
        known = None if key is None else self._find(key)
        return None if known is None else known[0]

    def keep(self, item: wire.EnqueueItem, id: int) -> None:
        if (key := _key(item)) is not None:
            self._known[key] = id, _digest(item), self._clock.wall_us() + KEY_S * 1_000_000

    def _find(self, key: Key) -> tuple[int, bytes, int] | None:
        known = self._known.get(key)
        return known if known is not None and known[2] > self._clock.wall_us() else None


def _key(item: wire.EnqueueItem) -> Key | None:
    return None if item.idempotency_key is None else (m.TopicName(item.namespace, item.topic), item.idempotency_key)


def _digest(item: wire.EnqueueItem) -> bytes:
    """Returns the message's hash. A field that is left out is the same as one with the default."""
    max_retries, lease = RETRIES if item.max_retries is None else item.max_retries, LEASE_S if item.lease is None else item.lease
    return hashlib.blake2b(_pack(msgspec.structs.replace(item, max_retries=max_retries, lease=int(lease * 1000) / 1000))).digest()
