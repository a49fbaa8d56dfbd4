"""A worker that runs in a test, and waiting for what it does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fake_broker import FakeBroker

from mqueue.worker.app import MQueue
from mqueue.worker.runtime import Worker


async def until(true: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def working(registry: MQueue, broker: FakeBroker, **options: Any) -> AsyncIterator[Worker]:
    worker = Worker(registry, url=broker.url, token=broker.token, **options)
    run = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        async with asyncio.timeout(15):
            assert await run == 0
