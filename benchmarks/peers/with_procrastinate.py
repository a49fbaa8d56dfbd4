"""procrastinate."""

from collections.abc import Sequence

import procrastinate

from benchmarks.peers import job, peer

PACKAGE = "procrastinate"
SETTINGS = "`async def`, 100 at once; a pool of 16"

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=peer.URL, min_size=4, max_size=16))


@app.task
async def run(payload: str) -> None:
    job.run(payload)


def prepare() -> None:
    once = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=peer.URL))
    with once.open():
        once.schema_manager.apply_schema()


def workers(count: int) -> list[list[str]]:
    return [peer.program("procrastinate", "--app", "benchmarks.peers.with_procrastinate.app", "worker", "--concurrency", "100")] * count


class Producer(peer.AsyncProducer):
    BULK = True

    async def open(self) -> None:
        await app.open_async()

    async def enqueue(self, payload: str) -> None:
        await run.defer_async(payload=payload)

    async def enqueue_many(self, payloads: Sequence[str]) -> None:
        await run.batch_defer_async(*({"payload": payload} for payload in payloads))
