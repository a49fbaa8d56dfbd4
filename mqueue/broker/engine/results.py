"""The result of a message is there, still to come, or never to come; the answer comes now, or as soon as that is known.

The result of an acked message is written after the ack was taken, so for a moment there is neither message nor result.
Where PostgreSQL does not take it, the worker sends ack and result again: that is waited for, too, for UNKNOWN_S.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from mqueue.broker.engine.edge.joined import first_of
from mqueue.broker.engine.result_waiters import ResultWaiters
from mqueue.broker.shard import Shard
from mqueue.broker.slots import SlotMap
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.message import MessageStatus, ResultLook, TopicName

UNKNOWN_S = 5.0
GAP_S = 0.1  # whoever does not wait looks again after so long, before nothing is known
LOOK_S = 2.0  # a waiter looks for itself: the message may have gone in another way
LOOKS_MAX = 250  # of all waiters in a second, so that others who ask PostgreSQL get their turn


def look_every(waiters: int) -> float:
    """Returns the seconds between two looks of one of so many."""
    return max(LOOK_S, waiters / LOOKS_MAX)


class Results:
    """Answers what became of a message. `status`: tells that of a message by its id, of some namespaces
    (None: of all), as one of some shards has it.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        slots: SlotMap,
        waiters: ResultWaiters,
        status: Callable[[int, Collection[str] | None, Sequence[Shard]], Awaitable[MessageStatus | None]],
        clock: Clock,
    ) -> None:
        self._shards = shards
        self._slots = slots
        self._waiters = waiters
        self._status = status
        self._clock = clock

    async def result(self, id: int, name: TopicName | None, wait: float = 0.0, namespaces: Collection[str] | None = None) -> ResultLook | None:
        """Returns done or dead as soon as it is, else what it is after `wait` seconds; None for one that is not known,
        or of another topic than `name`, or of no namespace among `namespaces` (None: all).
        """
        shards = self._shards if name is None else [self._shards[self._slots.shard(name)]]
        look = partial(self._look, shards, id, name, namespaces)
        if wait <= 0:
            found = await look()
            if found is None:
                await asyncio.sleep(GAP_S)
                found = await look()
            return found
        waiter = self._waiters.add(id, [shard.store for shard in shards])
        try:
            return await self._wait(waiter.event, look, wait)
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
                async with asyncio.timeout(min(left, look_every(self._waiters.count))):
                    await event.wait()
            except TimeoutError:
                continue

    async def _look(self, shards: Sequence[Shard], id: int, name: TopicName | None, namespaces: Collection[str] | None) -> ResultLook | None:
        async def kept(shard: Shard) -> ResultLook | None:
            found = await shard.store.result_of(id, name, namespaces, values=True)
            return None if found is None else ResultLook("done", bytes(found[-1] or b""))

        failed: Unavailable | None = None
        try:
            if (done := await first_of([kept(shard) for shard in shards])) is not None:
                return done
        except Unavailable as error:  # the message itself may be in another shard
            failed = error
        status = await self._status(id, namespaces, shards)
        if failed is not None and (status is None or status.state == "done"):
            raise failed
        if status is None or name not in (None, (status.namespace, status.topic)) or status.state == "done":
            return None  # it ended since the look before: the next look finds it
        return ResultLook(status.state, error=status.error)
