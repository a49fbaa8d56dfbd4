"""One budget of bytes: whatever the size of the messages, ready, delayed, unflushed or with keys, Redis stays under
1.1 times its budget, and every topic goes on.

python -m tests.campaigns.budget --minutes 10 --budget 64
"""

import asyncio
import time
from contextlib import suppress
from itertools import count

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import MQueueError
from tests.processes.broker import Broker

from .campaign import finish, options, table

BUDGET_MB = 64
MB = 1024 * 1024
ALLOWED = 1.1
LOOK_S = 1.0
SIZES = (1, 100, 5_000, 64 * 1024, 256 * 1024)
REQUEST_MAX = 4 * MB
TOPICS = 12
PAUSE_S = 0.02  # after a refusal, and between the fetches of one consumer


def env(budget_mb: int) -> dict[str, str]:
    return {"MQUEUE_REDIS_MAX_MB": str(budget_mb), "MQUEUE_BUFFER_MAX_MB": str(budget_mb // 4)}


class Load:
    """Producers of each size and kind, and slow consumers, each of a topic. `fetched`: by topic."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._keys = count()
        self.enqueued = self.refused = 0
        self.fetched = dict.fromkeys(range(TOPICS), 0)

    def _item(self, topic: int, size: int, kind: str, n: int) -> wire.EnqueueItem:
        payload = bytes(size)
        if kind == "delayed":
            return wire.EnqueueItem(topic=f"t{topic}", payload=payload, delay=20.0 + n % 30)
        key = f"key {next(self._keys)}" if kind == "keyed" else None
        return wire.EnqueueItem(topic=f"t{topic}", payload=payload, priority=n % 5, idempotency_key=key)

    async def produce(self, size: int, kind: str) -> None:
        many = max(1, min(500, REQUEST_MAX // (size + 100)))
        for n in count():
            try:
                await self._client.enqueue_many([self._item((n + size) % TOPICS, size, kind, n + k) for k in range(many)])
                self.enqueued += many
            except MQueueError:  # it is full: that is an answer
                self.refused += many
                await asyncio.sleep(PAUSE_S)

    async def consume(self, topic: int) -> None:
        while True:
            with suppress(MQueueError):
                got = await self._client.fetch(f"t{topic}", limit=10, wait=1.0)
                if got:
                    await self._client.ack(got)
                    self.fetched[topic] += len(got)
            await asyncio.sleep(PAUSE_S)


async def run(broker: Broker, seconds: float) -> tuple[Load, list[int]]:
    """The load, and the bytes of Redis at each look."""
    looks: list[int] = []
    async with AsyncClient(broker.url, broker.token, safe_retries=False) as client:
        load = Load(client)
        tasks = [asyncio.create_task(load.produce(size, kind)) for size in SIZES for kind in ("ready", "delayed", "keyed")]
        tasks += [asyncio.create_task(load.consume(topic)) for topic in range(TOPICS)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            looks.append(await asyncio.to_thread(broker.redis_memory))
            await asyncio.sleep(LOOK_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return load, looks


def report(load: Load, looks: list[int], budget_mb: int) -> int:
    most = max(looks)
    good = most < ALLOWED * budget_mb * MB and all(load.fetched.values()) and load.enqueued > 0
    rows = {
        "looks": len(looks),
        "enqueued, refused": f"{load.enqueued}, {load.refused}",
        "fetched, least of a topic": f"{sum(load.fetched.values())}, {min(load.fetched.values())}",
        "Redis at most, MB": f"{most / MB:.1f} of {budget_mb}",
        "in the middle, MB": f"{sorted(looks)[len(looks) // 2] / MB:.1f}",
    }
    return finish(good, table(rows), "what Redis holds is bounded in bytes, and every topic goes on")


def main() -> int:
    args = options(__doc__, minutes=10.0, budget=BUDGET_MB)
    with Broker(env=env(args.budget)) as broker:
        return report(*asyncio.run(run(broker, args.minutes * 60)), args.budget)


if __name__ == "__main__":
    raise SystemExit(main())
