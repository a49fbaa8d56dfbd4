"""Bounded memory: a backlog that nobody consumes goes to PostgreSQL; Redis and the broker stay small, and it comes back
in order.

python -m tests.campaigns.memory --messages 1000000
"""

import asyncio
import time
from contextlib import suppress

from mqueue import wire
from mqueue.client import AsyncClient
from tests.processes.broker import Broker

from .campaign import finish, options, table

BATCH = 1_000
REDIS_MAX, RSS_MAX = 100, 300  # MB
MB = 1_000_000
LOOK_S = 0.2
DRAINED = 20_000  # messages fetched at the end


class Watch:
    """The greatest sizes seen, in bytes, looking every LOOK_S."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.redis = self.rss = self.looks = 0

    async def run(self) -> None:
        while True:
            self.redis = max(self.redis, await asyncio.to_thread(self._broker.redis_memory))
            self.rss = max(self.rss, self._broker.rss())
            self.looks += 1
            await asyncio.sleep(LOOK_S)


async def fill(client: AsyncClient, messages: int, producers: int) -> None:
    left = messages

    async def produce() -> None:
        nonlocal left
        while left > 0:
            count = min(BATCH, left)
            left -= count
            await client.enqueue_many([wire.EnqueueItem(topic="backlog", payload=b"x" * 100, priority=n % 10) for n in range(count)])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(producers):
            tasks.create_task(produce())


async def drain(client: AsyncClient, messages: int) -> bool:
    """Fetches so many; whether they came in order of their keys."""
    keys: list[tuple[int, int]] = []
    while len(keys) < messages:
        got = await client.fetch("backlog", limit=min(BATCH, messages - len(keys)))
        assert got, "nothing, though there is a backlog"
        keys += [(m.priority, m.id) for m in got]
        await client.ack(got)
    return keys == sorted(keys)


async def run(broker: Broker, messages: int, producers: int) -> int:
    watch = Watch(broker)
    looking = asyncio.create_task(watch.run())
    try:
        async with AsyncClient(broker.url, broker.token, safe_retries=False) as client:
            began = time.monotonic()
            await fill(client, messages, producers)
            seconds = time.monotonic() - began
            ordered = await drain(client, min(DRAINED, messages))
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
    good = watch.redis < REDIS_MAX * MB and watch.rss < RSS_MAX * MB and ordered
    rows = {
        "messages": messages,
        "enqueued a second": round(messages / seconds),
        "looks": watch.looks,
        f"Redis, MB (below {REDIS_MAX})": round(watch.redis / MB, 1),
        f"broker, MB (below {RSS_MAX})": round(watch.rss / MB, 1),
        "in order afterwards": "yes" if ordered else "no",
    }
    return finish(good, table(rows), "what Redis and the broker hold is bounded, and order is kept")


def main() -> int:
    given = options(__doc__, messages=1_000_000, producers=4)
    with Broker() as broker:
        return asyncio.run(run(broker, given.messages, given.producers))


if __name__ == "__main__":
    raise SystemExit(main())
