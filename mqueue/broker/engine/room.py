"""Room is where enqueues wait for the write-behind buffer to have place again, first come first served.

One task of a shard asks Redis, and tells all who wait; it lives while somebody does. The flush that it asks for tells
them, too, where this broker leads.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from mqueue.broker.faults import Fault
from mqueue.broker.shard import HOT, Shard
from mqueue.errors import BufferFull

ASK_S = 0.1  # how often Redis is asked while somebody waits
WAITING_MAX = 2_000  # requests that may wait


class Waiter(NamedTuple):
    size: int
    admitted: asyncio.Future[None]


class Room:
    """The line before the buffer of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._line: deque[Waiter] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def wait(self, size: int, seconds: float, *, refused: bool = False) -> None:
        """Waits until the buffer has room for so many bytes more, or nothing in it. `refused`: the script has just said
        that it has none, so it is asked first. Raises BufferFull past `seconds`, or where too many wait already.
        """
        if not refused and not self._line and self._fits(size):
            return
        if seconds <= 0 or len(self._line) >= WAITING_MAX:
            raise full()
        waiter = Waiter(size, asyncio.get_running_loop().create_future())
        self._line.append(waiter)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        try:
            async with asyncio.timeout(seconds):
                await waiter.admitted
        except TimeoutError:
            raise full() from None
        finally:
            if not waiter.admitted.done() or waiter.admitted.cancelled():
                with suppress(ValueError):
                    self._line.remove(waiter)

    def _fits(self, more: int) -> bool:
        shard = self._shard
        return shard.mode != HOT or not shard.buffer or not shard.buffer_max or shard.buffer + shard.coming + more <= shard.buffer_max

    async def _ask(self) -> None:
        """Asks for a flush, and whether it came, until nobody waits; lets in as many as fit."""
        shard = self._shard
        try:
            while self._line:
                shard.room.clear()
                try:
                    async with asyncio.timeout(ASK_S):
                        await shard.room.wait()
                except TimeoutError:
                    with suppress(Fault):
                        if shard.mode == HOT:
                            await shard.cache.ask_flush()
                            shard.buffer = (await shard.cache.gauges())["taken"]
                self._admit()
        finally:
            self._asking = None

    def _admit(self) -> None:
        size = 0
        while self._line and (self._line[0].admitted.done() or self._fits(size + self._line[0].size)):
            waiter = self._line.popleft()
            if not waiter.admitted.done():
                waiter.admitted.set_result(None)
                size += waiter.size


def full() -> BufferFull:
    return BufferFull("the write-behind buffer is full: PostgreSQL does not keep up", retry_after=1)
