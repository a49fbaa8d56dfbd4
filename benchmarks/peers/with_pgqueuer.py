"""PgQueuer, over asyncpg. Its command `pgq run` fails with the typer of its day, so this calls what it calls."""

import asyncio
from collections.abc import Sequence

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers import job, peer

PACKAGE = "pgqueuer"
SETTINGS = "`async def`, batches of 100; a pool of 16"


async def work() -> None:
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(peer.URL)))

    @queuer.entrypoint("run")
    async def run(job_there: Job) -> None:
        job.run((job_there.payload or b"").decode())

    await queuer.run(batch_size=100)


def prepare() -> None:
    async def install() -> None:
        await Queries(AsyncpgDriver(await asyncpg.connect(peer.URL))).install()

    asyncio.run(install())


def workers(count: int) -> list[list[str]]:
    return [peer.module("benchmarks.peers.with_pgqueuer")] * count


class Producer(peer.AsyncProducer):
    BULK = True

    async def open(self) -> None:
        self._queries = Queries(AsyncpgPoolDriver(await asyncpg.create_pool(peer.URL, min_size=4, max_size=16)))

    async def enqueue(self, payload: str) -> None:
        await self._queries.enqueue("run", payload.encode())

    async def enqueue_many(self, payloads: Sequence[str]) -> None:
        await self._queries.enqueue(["run"] * len(payloads), [payload.encode() for payload in payloads], [0] * len(payloads))


if __name__ == "__main__":
    asyncio.run(work())
