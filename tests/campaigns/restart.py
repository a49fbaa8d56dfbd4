"""From `exec` to the ready line, after a `kill -9` with a deep queue and a long unflushed log; Redis kept, and Redis
emptied meanwhile.

    python -m tests.campaigns.restart --messages 1000000 --records 100000

The flush stands still because a transaction of our own holds the shard's row, as a stuck one of anybody would. Where
Redis was emptied the whole log beyond the position goes into PostgreSQL before the broker is ready.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import psutil

from mqueue import wire
from mqueue.broker.cache import keys
from mqueue.broker.wal.recovery import inspect
from mqueue.broker.wal.segment import HEADER_SIZE
from mqueue.client import AsyncClient
from tests.processes.broker import Broker
from tests.waiting import until, wait_until

from .campaign import finish, options, table
from .memory import fill

ENV = {"MQUEUE_BUFFER_MAX_MB": "2048", "MQUEUE_REDIS_MAX_MB": "4096"}  # all that is unflushed has room
READY_MAX_S = 3.0
PRODUCERS = 2
FLUSH_WAIT_S = 300.0
LOAD_WAIT_S = 600.0
TOPIC = "fresh"


@dataclass
class Restart:
    """`records`: of the log, beyond the position, at the kill. `missing`: messages that PostgreSQL lacks after all is
    flushed again.
    """

    redis: str
    records: int
    messages: int
    ready_s: float
    cpu_s: float  # of the broker, until then
    served_s: float
    missing: int


def run(broker: Broker, messages: int, records: int) -> Iterator[Restart]:
    asyncio.run(_fill(broker, messages))
    for kept in (True, False):
        yield _restart(broker, records, kept)


async def _fill(broker: Broker, messages: int) -> None:
    async with AsyncClient(broker.url, broker.token, safe_retries=False) as client:
        await fill(client, messages, producers=2)
    await asyncio.to_thread(_until_flushed, broker)


def _restart(broker: Broker, records: int, kept: bool) -> Restart:
    before = _rows(broker)
    with flush_held(broker):
        added = asyncio.run(_load(broker, records))
        broker.kill()
    if not kept:
        _forget(broker)
    beyond = records_beyond_position(broker)
    began = time.monotonic()
    broker.start()
    ready_s = time.monotonic() - began
    cpu = psutil.Process(broker.pid).cpu_times()
    asyncio.run(_serve(broker))
    served_s = time.monotonic() - began
    _until_flushed(broker)
    missing = before + added - 1 - _rows(broker)
    return Restart("kept" if kept else "emptied", beyond, before + added, ready_s, cpu.user + cpu.system, served_s, missing)


@contextmanager
def flush_held(broker: Broker) -> Iterator[None]:
    """No flush can commit; what only reads, and the brokers' own rows, go on."""
    with broker.database() as connection, connection.transaction():
        connection.execute("SELECT FROM shard FOR UPDATE")
        yield


async def _load(broker: Broker, records: int) -> int:
    """Messages one by one, some of them acked, until so many batches are logged; no call is under way then. Returns how
    many more there are.
    """
    done = asyncio.Event()
    enqueued = acked = 0

    async def produce(client: AsyncClient) -> None:
        nonlocal enqueued
        while not done.is_set():
            await client.enqueue_many([wire.EnqueueItem(topic=TOPIC, payload=b"x" * 100, priority=enqueued % 10)])
            enqueued += 1

    async def consume(client: AsyncClient) -> None:
        nonlocal acked
        while not done.is_set():
            acked += len(await client.ack(await client.fetch(TOPIC, limit=1, wait=0.1)))

    def logged() -> float:
        return broker.metric("mqueue_wal_commit_seconds_count")

    before = logged()
    async with AsyncClient(broker.url, broker.token, retries=False) as client, asyncio.TaskGroup() as tasks:
        for _ in range(PRODUCERS):
            tasks.create_task(produce(client))
        tasks.create_task(consume(client))
        # an ack is a record too
        await until(lambda: asyncio.to_thread(logged), "all is logged", LOAD_WAIT_S, enough=lambda now: now - before + acked >= records)
        done.set()
    return enqueued - acked


def records_beyond_position(broker: Broker) -> int:
    """As a broker that starts finds them on disk."""
    [(position,)] = broker.sql("SELECT position FROM broker")
    wal = broker.data_dir / "wal"
    found = inspect(wal / "shard-0", 0, UUID(json.loads((wal / "broker.json").read_text())["uuid"]))
    return sum(
        record.sequence > position
        for segment in (*found.sealed, *filter(None, [found.segment]))
        if segment.last > position
        for record in segment.read(HEADER_SIZE, segment.size)
    )


def _forget(broker: Broker) -> None:
    with broker.redis() as client:
        client.flushall()


async def _serve(broker: Broker) -> None:
    """One message, fetched and acked."""
    async with AsyncClient(broker.url, broker.token) as client:
        [message] = await client.fetch("backlog", limit=1, wait=10)
        await client.ack([message])


def _rows(broker: Broker) -> int:
    [(count,)] = broker.sql("SELECT count(*) FROM message")
    return int(count)


def _until_flushed(broker: Broker) -> None:
    def flushed() -> bool:
        with broker.redis() as client:
            return not client.llen(keys.dirty(0))

    wait_until(flushed, "all is flushed", FLUSH_WAIT_S)


def report(found: list[Restart]) -> list[str]:
    lines = []
    for r in found:
        rows = {
            "messages queued": r.messages,
            "log records unflushed": r.records,
            "exec to ready, s": round(r.ready_s, 2),
            "CPU of the broker until then, s": round(r.cpu_s, 2),
            "exec to a message served, s": round(r.served_s, 2),
            "messages missing": r.missing,
        }
        lines += [f"Redis {r.redis}", *table(rows, indent="  ")]
    return lines


def main() -> int:
    given = options(__doc__, messages=1_000_000, records=100_000)
    with Broker(env=ENV) as broker:
        found = list(run(broker, given.messages, given.records))
    good = all(r.ready_s <= READY_MAX_S and not r.missing and r.records >= given.records for r in found)
    return finish(good, report(found), f"ready within {READY_MAX_S:g} s, nothing missing")


if __name__ == "__main__":
    raise SystemExit(main())
