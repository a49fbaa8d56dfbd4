"""A fetch that waits ends when its client hangs up, in whatever moment: what it leased afterwards nobody would get."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mqueue.broker.cache.calls import Fetched
from mqueue.broker.engine.fetch_waiters import Waiters
from mqueue.broker.engine.fetcher import Fetcher
from mqueue.broker.http.call import ClientGone
from mqueue.broker.http.waits import WATCH_AFTER_S, Waits
from mqueue.broker.metrics import Metrics
from mqueue.clock import SystemClock

WAIT_S = 30.0


@pytest.mark.parametrize("turns", range(-3, 4))
async def test_a_hang_up_that_meets_a_wake_is_not_lost(turns: int) -> None:
    """`turns` of the loop lie between the two; below 0 the wake comes first."""
    waiters, gone, fetches = Waiters(), asyncio.Event(), 0

    async def fetch(*_: object) -> Fetched:
        nonlocal fetches
        fetches += 1
        return Fetched("nothing", 0)

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def serving() -> None:
        pass

    shard: Any = SimpleNamespace(number=0, mode="hot", cache=SimpleNamespace(fetch=fetch), epoch=1, node=1, wait_serving=serving)
    slots: Any = SimpleNamespace(shard=lambda name: 0)
    fetcher = Fetcher([shard], slots, waiters, Metrics(), SystemClock())
    waiting = asyncio.create_task(Waits().run(lambda: fetcher.fetch("n", ["t"], 1, WAIT_S), receive, waits=True))
    await asyncio.sleep(3 * WATCH_AFTER_S)  # it is watched by now
    first, second = (gone.set, waiters.look) if turns >= 0 else (waiters.look, gone.set)
    first()
    for _ in range(abs(turns)):
        await asyncio.sleep(0)
    second()
    await asyncio.wait([waiting], timeout=WAIT_S / 10)
    assert waiting.done()
    with pytest.raises(ClientGone):
        await waiting
    assert fetches <= 2
