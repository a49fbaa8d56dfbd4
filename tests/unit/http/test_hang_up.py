"""A fetch that waits ends when its client hangs up, in whatever moment: what it leased afterwards nobody would get."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mqueue.broker.cache.calls import Fetched
from mqueue.broker.engine.edge.give_back import GiveBack
from mqueue.broker.engine.fetch_waiters import Waiters
from mqueue.broker.engine.fetcher import Fetcher
from mqueue.broker.format import record
from mqueue.broker.http.call import ClientGone
from mqueue.broker.http.waits import WATCH_AFTER_S, Waits
from mqueue.broker.metrics import Metrics
from mqueue.broker.ports import Asks
from mqueue.clock import SystemClock
from mqueue.message import Settle, Verdict
from tests.waiting import until

WAIT_S = 30.0
RECORD = record.leased(
    record.new(priority=0, due=0, id=7, expires=0, max_retries=0, lease_ms=1, node=1, sequence=1, size=0, topic=b"n/t"), bytes(12), 1
)


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

    cache, store = SimpleNamespace(fetch=fetch), SimpleNamespace(circuit=SimpleNamespace(is_open=False))
    shard: Any = SimpleNamespace(number=0, mode="hot", cache=cache, store=store, epoch=1, node=1, wait_serving=serving)
    slots: Any = SimpleNamespace(shard=lambda name: 0)

    async def settle(settles: Sequence[Settle]) -> list[Verdict]:
        raise AssertionError("nothing was leased")

    fetcher = Fetcher([shard], slots, waiters, Metrics(), SystemClock(), GiveBack(settle))
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


@pytest.mark.parametrize("looks", [0, 1], ids=["before the lease", "after the lease"])
async def test_what_is_leased_for_a_client_that_has_gone_is_given_back(looks: int) -> None:
    """`looks`: so often the client is still there."""
    seen, leased = [False] * looks + [True], 0

    async def fetch(*_: object) -> Fetched:
        nonlocal leased
        leased += 1
        return Fetched("ok", 0, [RECORD], [record.body(1, b"x", None, None)], 0)

    async def serving() -> None:
        pass

    given_back: list[Settle] = []

    async def settle(settles: Sequence[Settle]) -> list[Verdict]:
        given_back.extend(settles)
        return ["ok"] * len(settles)

    cache, store = SimpleNamespace(fetch=fetch), SimpleNamespace(circuit=SimpleNamespace(is_open=False))
    shard: Any = SimpleNamespace(number=0, mode="hot", cache=cache, store=store, epoch=1, node=1, wait_serving=serving)
    fetcher = Fetcher([shard], SimpleNamespace(shard=lambda name: 0), Waiters(), Metrics(), SystemClock(), GiveBack(settle))  # type: ignore[arg-type]
    assert await fetcher.fetch("n", ["t"], 1, asks=Asks(lambda: seen.pop(0))) == []
    await until(lambda: len(given_back) == looks)
    assert (leased, [s.kind for s in given_back]) == (looks, ["release"] * looks)
