"""taskiq, on a Redis stream."""

from taskiq_redis import RedisStreamBroker

from benchmarks.peers import job, peer

PACKAGE = "taskiq"
SETTINGS = "Redis stream; `async def`, 100 at once"

broker = RedisStreamBroker(url=peer.URL)


@broker.task
async def run(payload: str) -> None:
    job.run(payload)


def prepare() -> None: ...


def workers(count: int) -> list[list[str]]:
    return [peer.program("taskiq", "worker", "benchmarks.peers.with_taskiq:broker", "--workers", str(count), "--log-level", "WARNING")]


class Producer(peer.AsyncProducer):
    async def open(self) -> None:
        await broker.startup()

    async def enqueue(self, payload: str) -> None:
        await run.kiq(payload)
