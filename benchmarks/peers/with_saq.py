"""SAQ."""

from typing import Any

from redis.asyncio import Redis
from saq import Queue
from saq.queue.redis import RedisQueue

from benchmarks.peers import job, peer

PACKAGE = "saq"
SETTINGS = "`async def`, 100 at once"


def _queue() -> Queue:
    return RedisQueue(Redis.from_url(peer.URL))


async def run(_context: Any, *, payload: str) -> None:
    job.run(payload)


settings = {"queue": _queue(), "functions": [run], "concurrency": 100}


def prepare() -> None: ...


def workers(count: int) -> list[list[str]]:
    return [peer.program("saq", "benchmarks.peers.with_saq.settings", "--workers", str(count))]


class Producer(peer.AsyncProducer):
    async def open(self) -> None:
        self._queue = _queue()
        await self._queue.connect()

    async def enqueue(self, payload: str) -> None:
        await self._queue.enqueue("run", payload=payload)
