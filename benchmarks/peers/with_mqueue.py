"""mqueue, through `AsyncClient`. Its server is the broker with its embedded stores."""

from collections.abc import Sequence

from benchmarks.peers import job, peer
from mqueue import task
from mqueue.client import AsyncClient

PACKAGE = "mqueue"
SETTINGS = "AsyncClient; `async def`, 100 slots"


@task(topic="bench")
async def run(payload: str) -> None:
    job.run(payload)


def prepare() -> None: ...


def workers(count: int) -> list[list[str]]:
    return [peer.module("mqueue.cli", "worker", "benchmarks.peers.with_mqueue", "--concurrency", "100", "--grace", "1s")] * count


class Producer(peer.AsyncProducer):
    BULK = True

    async def open(self) -> None:
        self._client = AsyncClient()

    async def enqueue(self, payload: str) -> None:
        await self._client.enqueue_many([run.message(payload)])

    async def enqueue_many(self, payloads: Sequence[str]) -> None:
        await self._client.enqueue_many([run.message(payload) for payload in payloads])
