"""Redis is emptied under many topics: each is served again soon, another namespace hardly notices, Valkey is not busy.

    python -m tests.campaigns.topics --topics 10000 --pollers 200

Each topic has one message, which is in PostgreSQL when Redis is emptied. The pollers share the topics, 50 each, and ack
what they get. Meanwhile another namespace enqueues, fetches and acks, one message at a time.
"""

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import redis.asyncio as aioredis

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.errors import MQueueError
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET

from .campaign import finish, options, table

T = TypeVar("T")

TOPICS_OF_ONE = 50
PAGE = 500
SERVED_S = 10.0
P99_S = 0.1
CORE = 0.6
GIVE_UP_S = 60.0


@dataclass
class Found:
    """`served_s`: until each topic's message was delivered; `opened_s`: until the shard served again. `refused`: polls
    that were told to come later. `others_s`: each call of the other namespace. `core`: the share of one that
    Valkey used until all were served.
    """

    topics: int
    served: int = 0
    served_s: float = 0.0
    polls: int = 0
    refused: int = 0
    others_s: list[float] = field(default_factory=list)
    core: float = 0.0

    def p99_s(self) -> float:
        return sorted(self.others_s)[int(0.99 * (len(self.others_s) - 1))] if self.others_s else float("inf")

    def good(self, served_s: float = SERVED_S, p99_s: float = P99_S, core: float = CORE) -> bool:
        return self.served == self.topics and self.served_s <= served_s and self.p99_s() <= p99_s and self.core <= core


async def run(topics: int, pollers: int) -> Found:
    found = Found(topics)
    names = [f"topic-{n}" for n in range(topics)]
    with tempfile.TemporaryDirectory(prefix="mq-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        async with (
            Stage(Path(folder), 1, 1, SECRET, {}) as stage,
            _client(stage) as client,
            _valkey(stage) as valkey,
            _other(stage.brokers[0].url, stage.token, found.others_s),
        ):
            for at in range(0, topics, PAGE):
                items = [wire.EnqueueItem(topic=name, payload=b"1") for name in names[at : at + PAGE]]
                await client.enqueue_many(items, durability="postgres")
            waiting = set(names)
            await asyncio.sleep(1.0)  # a second of calm
            began, used = time.monotonic(), await _cpu_s(valkey)
            await valkey.flushall()
            parts = [names[n::pollers] for n in range(pollers)]
            polling = [asyncio.create_task(_poll(client, part[:TOPICS_OF_ONE], waiting, found)) for part in parts]
            with suppress(TimeoutError):
                async with asyncio.timeout(GIVE_UP_S):
                    await asyncio.gather(*polling)
            found.served, found.served_s = topics - len(waiting), time.monotonic() - began
            found.core = (await _cpu_s(valkey) - used) / found.served_s
    return found


async def _poll(client: AsyncClient, topics: Sequence[str], waiting: set[str], found: Found) -> None:
    """Polls until each of these topics was served."""
    while waiting.intersection(topics):
        found.polls += 1
        try:
            got = await client.fetch(topics, limit=TOPICS_OF_ONE, wait=2.0)
            waiting.difference_update(message.topic for message in got)
            if got:
                await client.ack(got)
        except MQueueError as error:
            found.refused += 1
            await asyncio.sleep(error.retry_after or 0.1)


@asynccontextmanager
async def _other(url: str, token: str, times_s: list[float]) -> AsyncIterator[None]:
    """The other namespace is a process of its own: it sees the broker, and not how busy the pollers' loop is."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_calls, args=(url, token, its))
    process.start()
    try:
        assert await asyncio.to_thread(ours.recv) == "begun"
        yield
        ours.send("enough")
        times_s += await asyncio.to_thread(ours.recv)
    finally:
        process.kill()
        await asyncio.to_thread(process.join)


def _calls(url: str, token: str, told: Connection) -> None:
    """Enqueues, fetches and acks one message after the other until it is told enough; tells how long each call took."""
    times_s: list[float] = []

    def timed(call: Callable[[], T]) -> T | None:
        began = time.monotonic()
        try:
            return call()
        except MQueueError:
            return None
        finally:
            times_s.append(time.monotonic() - began)

    with Client(url, token, retries=False, timeout=30.0) as client:
        client.fetch("steady", namespace="other", limit=1)
        told.send("begun")
        while not told.poll(0.005):
            timed(lambda: client.enqueue("steady", b"1", namespace="other"))
            if got := timed(lambda: client.fetch("steady", namespace="other", limit=1)):
                timed(lambda: client.ack(got))
        told.send(times_s)


@asynccontextmanager
async def _client(stage: Stage) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stage.brokers[0].url, stage.token, retries=False, timeout=30.0) as client:
        yield client


@asynccontextmanager
async def _valkey(stage: Stage) -> "AsyncIterator[aioredis.Redis]":
    client = aioredis.Redis(unix_socket_path=stage.urls.redis_addrs[0].removeprefix("unix://"), password=stage.urls.redis_password)
    try:
        yield client
    finally:
        await client.aclose()


async def _cpu_s(valkey: "aioredis.Redis") -> float:
    told = await valkey.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def report(found: Found) -> list[str]:
    return table(
        {
            "topics": found.topics,
            "served": found.served,
            "served, s after Redis was emptied": f"{found.served_s:.2f}",
            "polls": found.polls,
            "polls refused": found.refused,
            "another namespace: calls": len(found.others_s),
            "another namespace: p99, ms": f"{1000 * found.p99_s():.1f}",
            "Valkey, share of a core": f"{found.core:.0%}",
        }
    )


def main() -> int:
    given = options(__doc__, topics=10_000, pollers=200)
    found = asyncio.run(run(given.topics, given.pollers))
    return finish(found.good(), report(found), f"each topic within {SERVED_S:g} s, p99 <= {1000 * P99_S:g} ms, Valkey <= {CORE:.0%}")


if __name__ == "__main__":
    raise SystemExit(main())
