"""This benchmark tells what the scripts cost in Redis: processor time of its main thread, for each message and for a
lone call. No broker runs: the calls are those of one, in a Valkey of its own.
"""

import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError, RedisError

from benchmarks.row import Row
from benchmarks.setting import Setting
from mqueue.broker.cache.calls import Enqueue, Limits, SettleArgs
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.embedded.binaries import find_valkey
from mqueue.broker.format import record

RUNS = 5
BATCH, BATCHES = 100, 30  # messages in a call; calls
LONE = 500  # calls of one message
EPOCH, TERM, NODE = 7, 1, 1
TOPIC = "n/t"
LIMITS = Limits(BATCH * BATCHES * 2, BATCH * BATCHES * 3, 100_000, 64 << 20, 256 << 20)
START_S = 10.0


class Life:
    """One broker's calls, and those of its leader, in an open epoch."""

    def __init__(self, cache: ReadyCache) -> None:
        self._cache = cache
        self._sequence, self._id, self._due = 0, 1 << 40, 0

    async def begin(self) -> None:
        cache, now = self._cache, int(time.time() * 1e6)
        await cache.lead(TERM, "a", LIMITS)
        await cache.open_epoch(EPOCH, TERM, (now, now), LIMITS, {NODE: 0})
        self._due = (await cache.clocks(EPOCH, now)).due_clock
        await cache.refill_begin(EPOCH, TERM, [TOPIC])
        await cache.refill_end(EPOCH, TERM, [(TOPIC, [], record.LAST)])
        await cache.time_scan_end(EPOCH, TERM, now + 3600_000_000, 0, [])

    async def enqueue(self, many: int) -> None:
        body = record.body(self._due, bytes(100), None, None)
        made = [Enqueue(i, self._record(len(body)), body, b"", b"") for i in range(many)]
        await self._cache.apply(EPOCH, NODE, self._sequence, self._sequence + 1, made, [], stamp=self._due)
        self._sequence += 1

    async def fetch(self, many: int) -> Sequence[bytes]:
        return (await self._cache.fetch(EPOCH, NODE, [TOPIC], many, 0, False)).records

    async def ack(self, records: Sequence[bytes]) -> None:
        args = [SettleArgs(data[record.ID], TOPIC.encode(), "ack", data[60:72], b"", b"") for data in records]
        await self._cache.apply(EPOCH, NODE, self._sequence, self._sequence + 1, [], args)
        self._sequence += 1

    async def flush(self) -> None:
        page = await self._cache.flush_read(EPOCH, TERM, 0, 10_000, 64 << 20, 0)
        versions = [(id, data[record.VERSION]) for id, data in zip(page.ids, page.records, strict=True) if data]
        await self._cache.flush_done(EPOCH, TERM, int.from_bytes(page.entries[-1][:8]), versions, [])

    async def tick(self) -> None:
        await self._cache.tick(EPOCH, TERM, int(time.time() * 1e6), NODE, 250_000)

    def _record(self, size: int) -> bytes:
        self._id += 1
        return record.new(
            priority=0, due=self._due, id=self._id, expires=0, max_retries=3, lease_ms=30_000, node=NODE, sequence=self._sequence + 1,
            size=size, topic=TOPIC.encode(),
        )  # fmt: skip


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    found: dict[str, list[float]] = {}
    async with own_valkey(place.folder) as (url, client):
        for _ in range(runs):
            for what, cost in (await _costs(url, client)).items():
                found.setdefault(what, []).append(cost)
    return [Row("scripts", what, "µs", costs, more_is_better=False) for what, costs in found.items()]


async def _costs(url: str, client: Any) -> dict[str, float]:
    """Returns µs by what was called."""
    await client.flushall()
    cache = ReadyCache(0, url)
    life, costs = Life(cache), dict[str, float]()
    await life.begin()

    async def timed(what: str, calls: int, each: int, call: Callable[[], Awaitable[Any]]) -> None:
        before = await _cpu_us(client)
        for _ in range(calls):
            await call()
        costs[what] = (await _cpu_us(client) - before) / calls / each

    async def unflushed() -> None:
        await life.enqueue(BATCH)
        await life.ack(await life.fetch(BATCH))

    async def flushed() -> None:
        await life.enqueue(BATCH)
        await life.flush()
        await life.ack(await life.fetch(BATCH))
        await life.flush()

    await timed("a message's life, never flushed", BATCHES, BATCH, unflushed)
    await life.flush()
    await timed("a message's life, flushed", BATCHES, BATCH, flushed)
    await timed("a lone enqueue", LONE, 1, lambda: life.enqueue(1))
    leased: list[bytes] = []

    async def fetch() -> None:
        leased.extend(await life.fetch(1))

    await timed("a lone fetch", LONE, 1, fetch)
    await timed("a lone ack", LONE, 1, lambda: life.ack([leased.pop()]))
    await timed("a tick", LONE, 1, life.tick)
    await cache.close()
    return costs


async def _cpu_us(client: Any) -> float:
    told = await client.info("cpu")
    return (float(told["used_cpu_user_main_thread"]) + float(told["used_cpu_sys_main_thread"])) * 1e6


@asynccontextmanager
async def own_valkey(folder: Path) -> AsyncIterator[tuple[str, Any]]:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        socket = f"{own}/s"
        command = [str(find_valkey()), "--port", "0", "--unixsocket", socket, "--save", "", "--zset-max-listpack-entries", "0"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client: Any = aioredis.Redis(unix_socket_path=socket)
        try:
            await _answers(client)
            yield f"unix://{socket}", client
        finally:
            await client.aclose()
            server.terminate()
            server.wait()


async def _answers(client: Any) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            await client.ping()
            return
        except (RedisError, OSError, ConnectionError):
            if time.monotonic() > deadline:
                raise
