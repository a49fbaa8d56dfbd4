"""Messages past their TTL do not keep a living one from being delivered, however many lie before it."""

import time
from pathlib import Path

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET
from tests.waiting import until

EXPIRED = 10_000
PAGE = 1_000
TTL_S = 3.0


async def test_a_living_message_comes_past_ten_thousand_that_have_expired(data_dir: Path) -> None:
    async with (
        Stage(data_dir, 1, 1, SECRET, {}) as stage,
        AsyncClient(stage.brokers[0].url, stage.token, retries=False, timeout=30.0) as client,
    ):
        assert await client.fetch(["work"]) == []
        for _ in range(0, EXPIRED, PAGE):
            await client.enqueue_many([wire.EnqueueItem(topic="work", payload=b"old", ttl=TTL_S) for _ in range(PAGE)])
        [alive] = await client.enqueue_many([wire.EnqueueItem(topic="work", payload=b"alive", priority=1)])
        over = time.monotonic() + TTL_S + 0.5
        await until(lambda: time.monotonic() > over, "the TTL is over")
        [got] = await client.fetch(["work"], limit=1)
        assert got.id == alive
