"""A worker that runs in a test, and its probe."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fake_broker import FakeBroker

from mqueue.worker.runtime import Worker
from mqueue.worker.tasks.app import MQueue


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """A worker's probe: status and text. Raises OSError where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


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
