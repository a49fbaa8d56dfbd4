"""The result of a message: there, still to come, or never to come; now, or as soon as that is known.

The result of an acked message is written after the ack was taken, so for a moment there is neither message nor result. Where PostgreSQL does
not take it, the worker sends ack and result again: that is waited for, too, for UNKNOWN_S.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.result_waiters import ResultWaiters
from mqueue.broker.shard import Shard
from mqueue.broker.sharding import SlotMap
from mqueue.clock import Clock
from mqueue.message import MessageStatus, ResultLook, TopicName

UNKNOWN_S = 5.0
GAP_S = 0.1  # whoever does not wait looks again after so long, before nothing is known
LOOK_S = 2.0  # a waiter looks for itself: the message may have gone in another way


class Results:
    """`status`: of a message by its id."""

    def __init__(
        self,
        shards: Sequence[Shard],
        slots: SlotMap,
        waiters: ResultWaiters,
        status: Callable[[int], Awaitable[MessageStatus | None]],
        clock: Clock,
    ) -> None:
        self._shards = shards
        self._slots = slots
        self._waiters = waiters
        self._status = status
        self._clock = clock

    async def result(self, id: int, name: TopicName | None, wait: float = 0.0, namespaces: Collection[str] | None = None) -> ResultLook | None:
        """Done or dead as soon as it is, else what it is after `wait` seconds; None for one that is not known, or of another topic than
        `name`, or of no namespace among `namespaces` (None: all).
        """
        shards = self._shards if name is None else [self._shards[self._slots.shard(name)]]

        def seen(namespace: str, topic: str) -> bool:
            return (name is None or name == (namespace, topic)) and (namespaces is None or namespace in namespaces)

        if wait <= 0:
            found = await self._look(shards, id, seen)
            if found is None:
                await asyncio.sleep(GAP_S)
                found = await self._look(shards, id, seen)
            return found
        waiter = self._waiters.add(id, [shard.store for shard in shards])
        try:
            return await self._wait(waiter.event, lambda: self._look(shards, id, seen), wait)
        finally:
            self._waiters.remove(waiter)

    async def _wait(self, event: asyncio.Event, look: Callable[[], Awaitable[ResultLook | None]], wait: float) -> ResultLook | None:
        now = self._clock.monotonic
        began = known_at = now()
        last: ResultLook | None = None
        while True:
            event.clear()
            found = await look()
            if found is not None:
                known_at, last = now(), found
            left = began + wait - now()
            if (found is not None and found.state in ("done", "dead")) or now() - known_at >= UNKNOWN_S:
                return found
            if left <= 0:
                return last
            try:
                await asyncio.wait_for(event.wait(), min(left, LOOK_S))
            except TimeoutError:
                continue

    async def _look(self, shards: Sequence[Shard], id: int, seen: Callable[[str, str], bool]) -> ResultLook | None:
        try:
            for shard in shards:
                for namespace, topic, _, value in await shard.store.results_of(id, values=True):
                    if value is not None and seen(namespace, topic):
                        return ResultLook("done", bytes(value))
        except Fault as fault:
            raise unavailable(fault) from fault
        status = await self._status(id)
        if status is None or not seen(status.namespace, status.topic) or status.state == "done":
            return None  # done: since the look before; another one finds it
        return ResultLook(status.state, error=status.error)
