"""Enqueues that wait for room ask Redis together, and are let in one after the other."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqueue.broker.engine.room import ASK_S, WAITING_MAX, Room
from mqueue.broker.shard import HOT
from mqueue.errors import BufferFull

SIZE = 10


class Cache:
    """It counts how often it is asked, and for a flush."""

    def __init__(self) -> None:
        self.asked = self.flushes_asked = 0
        self.taken = 100

    async def ask_flush(self) -> None:
        self.flushes_asked += 1

    async def gauges(self) -> dict[str, int]:
        self.asked += 1
        return {"taken": self.taken}


def full_shard() -> Any:
    return SimpleNamespace(mode=HOT, buffer=100, buffer_max=100, coming=0, room=asyncio.Event(), cache=Cache())


def test_who_waits_asks_together() -> None:
    async def wait() -> tuple[int, float]:
        shard = full_shard()
        room = Room(cast(Any, shard))
        began = asyncio.get_running_loop().time()
        told = await asyncio.gather(*(room.wait(SIZE, 0.5) for _ in range(300)), return_exceptions=True)
        assert all(isinstance(error, BufferFull) for error in told)
        assert 1 <= shard.cache.flushes_asked == shard.cache.asked
        return shard.cache.asked, asyncio.get_running_loop().time() - began

    asked, seconds = asyncio.run(wait())
    assert 1 <= asked <= seconds / ASK_S + 1, f"asked {asked} times in {seconds:.1f} s for 300 who wait"


def test_who_came_first_is_let_in_first_and_no_more_than_fit() -> None:
    async def wait() -> tuple[list[int], int]:
        shard, order = full_shard(), list[int]()
        room = Room(cast(Any, shard))

        async def one(n: int) -> None:
            await room.wait(SIZE, 5.0)
            shard.buffer += SIZE
            order.append(n)

        waiters = [asyncio.create_task(one(n)) for n in range(8)]
        await asyncio.sleep(0)  # all of them stand in the line
        shard.buffer = shard.cache.taken = 50
        shard.room.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiters[:5])
        there = len(order)
        for waiter in waiters:
            waiter.cancel()
        return order, there

    assert asyncio.run(wait()) == ([0, 1, 2, 3, 4], 5)


def test_the_line_is_bounded() -> None:
    async def wait() -> None:
        room = Room(cast(Any, full_shard()))
        waiters = [asyncio.create_task(room.wait(SIZE, 60.0)) for _ in range(WAITING_MAX)]
        await asyncio.sleep(0)  # all of them stand in the line
        with pytest.raises(BufferFull):
            await room.wait(SIZE, 60.0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)

    asyncio.run(wait())


def test_a_refusal_of_the_script_is_not_asked_again_at_once() -> None:
    async def wait() -> int:
        shard = full_shard()
        shard.buffer = shard.cache.taken = 0
        await Room(cast(Any, shard)).wait(SIZE, 5.0, refused=True)
        return cast(int, shard.cache.asked)

    assert asyncio.run(wait()) == 1
