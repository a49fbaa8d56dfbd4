"""What one part of the leader's work, or one tenant's reading, waits for does not stop the rest."""

import asyncio
import time
from pathlib import Path

import psycopg

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import Unavailable
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET
from tests.waiting import until


async def test_a_flush_that_is_blocked_stops_neither_openings_nor_the_term(data_dir: Path) -> None:
    async with (
        Stage(data_dir, 1, 1, SECRET, {}) as stage,
        AsyncClient(stage.brokers[0].url, stage.token, retries=False, timeout=10.0) as client,
        await psycopg.AsyncConnection.connect(stage.urls.database_urls[0], autocommit=True) as other,
    ):
        term = await _term(other)
        async with other.transaction():
            await other.execute("LOCK TABLE message IN SHARE MODE")  # nobody writes rows, everybody reads them
            for n in range(30):
                topic = f"topic-{n}"
                [id] = await client.enqueue_many([wire.EnqueueItem(topic=topic, payload=b"1")])
                old = time.monotonic() + 1.0  # twice the flush age: then there is a flush to be blocked
                await until(lambda old=old: time.monotonic() > old, "old enough to be flushed")
                [got] = await client.fetch([f"new-{n}", topic], limit=1)
                assert got.id == id
                assert await client.fetch([f"newer-{n}"]) == []
        assert await _term(other) == term


async def test_slow_reads_of_one_namespace_hold_up_no_other_and_not_the_leader(data_dir: Path) -> None:
    async with (
        Stage(data_dir, 1, 1, SECRET, {}) as stage,
        AsyncClient(stage.brokers[0].url, stage.token, retries=False, timeout=30.0) as client,
        await psycopg.AsyncConnection.connect(stage.urls.database_urls[0], autocommit=True) as other,
    ):
        term = await _term(other)
        async with other.transaction():
            await other.execute("LOCK TABLE dead_letter IN ACCESS EXCLUSIVE MODE")  # whoever reads dead letters takes long
            readers = [asyncio.create_task(_read_dead(client)) for _ in range(16)]
            for n in range(12):
                assert await client.fetch([f"new-{n}"], namespace="other") == []  # its first: the leader opens it
                item = wire.EnqueueItem(namespace="other", topic="keyed", payload=b"1", idempotency_key=f"key {n}")
                await client.enqueue_many([item])
                later = time.monotonic() + 0.5  # a failure of the leader would need seconds, too
                await until(lambda later=later: time.monotonic() > later, "half a second later")
            refused = sum(await asyncio.gather(*readers))
        assert refused > 0, "no reader was refused: this proved little"
        assert await _term(other) == term


async def _read_dead(client: AsyncClient) -> int:
    """Reads for some seconds. Returns how often it was told to come later."""
    refused, end = 0, time.monotonic() + 6.0
    while time.monotonic() < end:
        try:
            await client.dead_letters("work", namespace="greedy")
        except Unavailable as error:
            assert error.retry_after
            refused += 1
    return refused


async def _term(connection: psycopg.AsyncConnection) -> int:
    row = await (await connection.execute("SELECT term FROM shard")).fetchone()
    assert row is not None
    return int(row[0])
