"""Calls wait here for a result, on this broker: each is woken at once where this broker stores it; one SELECT a shard
every LOOK_S serves all of them where another one does, or where the message becomes a dead letter.
"""

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice

from mqueue.broker.faults import Fault
from mqueue.broker.store.shard import ShardStore
from mqueue.errors import Unavailable
from mqueue.message import BATCH_MAX

WAITERS_MAX = 2_000
LOOK_S = 0.2


class ResultWaiter:
    __slots__ = ("event", "id", "shards")

    def __init__(self, id: int, shards: tuple[int, ...]) -> None:
        self.id = id
        self.shards = shards
        self.event = asyncio.Event()


class ResultWaiters:
    """The calls that wait, of all shards."""

    def __init__(self) -> None:
        self._of: dict[int, dict[int, set[ResultWaiter]]] = {}  # shard → id → who waits; ids in the order in which they are looked for
        self._looking: dict[int, asyncio.Task[None]] = {}
        self.count = 0

    def add(self, id: int, stores: Collection[ShardStore]) -> ResultWaiter:
        """Adds a call that waits. Raises Unavailable when too many wait."""
        if self.count >= WAITERS_MAX:
            raise Unavailable("too many wait for results", retry_after=1)
        self.count += 1
        waiter = ResultWaiter(id, tuple(store.number for store in stores))
        for store in stores:
            self._of.setdefault(store.number, {}).setdefault(id, set()).add(waiter)
            if store.number not in self._looking:
                self._looking[store.number] = asyncio.create_task(self._look(store), name=f"results-{store.number}")
        return waiter

    def remove(self, waiter: ResultWaiter) -> None:
        self.count -= 1
        for shard in waiter.shards:
            ids = self._of[shard]
            ids[waiter.id].discard(waiter)
            if not ids[waiter.id]:
                del ids[waiter.id]

    def wake(self, shard: int, ids: Iterable[int]) -> None:
        there = self._of.get(shard)
        for id in ids if there else ():
            for waiter in there.get(id, ()):  # type: ignore[union-attr]
                waiter.event.set()

    async def _look(self, store: ShardStore) -> None:
        """Looks while somebody waits. Of very many, it looks for some each time."""
        ids = self._of[store.number]
        try:
            while ids:
                await asyncio.sleep(LOOK_S)
                some = list(islice(ids, BATCH_MAX))
                if some:
                    with suppress(Fault):
                        self.wake(store.number, await store.ended(some))
                for id in some:
                    if id in ids and len(ids) > BATCH_MAX:
                        ids[id] = ids.pop(id)
        finally:
            del self._looking[store.number]
