"""Past Redis, everybody holds the shard row: who waits to move it, or the clock, must not wait for a gap between
them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from psycopg import AsyncConnection
from stores import SECOND, World, message

from mqueue.broker.store.cold import ColdStore, Fresh
from mqueue.broker.store.queries import sql
from tests.waiting import until

SOON_S = 2.0


@pytest.fixture
def cold(world: World) -> ColdStore:
    world.run(world.fresh())
    lead = world.lead
    world.run(world.lead.store.open_cold(lead.epoch, lead.term, 1, 0))
    return ColdStore(world.store)


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await world.store.connect()
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def holding(world: World) -> AsyncIterator[Sequence[Any]]:
    """The epoch, as every transaction past Redis does."""
    async with connected(world) as connection, connection.transaction():
        rows = await (await connection.execute(sql("fence_mode"), {"epoch": world.lead.epoch, "mode": "cold"})).fetchall()
        yield rows


def test_the_clock_goes_on_while_others_hold_the_epoch(world: World, cold: ColdStore) -> None:
    async def told() -> tuple[int, int]:
        lead = world.lead
        async with holding(world):
            async with asyncio.timeout(SOON_S):
                clock, *_ = await lead.store.cold.turn(lead.epoch, lead.term, lambda: 77 * SECOND, lambda: 0)
            async with holding(world) as [(due, _)]:
                return clock, due

    clock, due = world.run(told())
    assert due > clock >= 77 * SECOND


def test_a_clock_that_was_moved_since_the_last_tick_is_not_ahead(world: World, cold: ColdStore) -> None:
    """The last tick was long ago, in a former cold epoch; a replay has moved the clock to what it is now."""

    async def told() -> Sequence[Any]:
        await world.connection.execute("UPDATE tick SET clock_us = 5000000, ticked_at = now() - interval '1 hour'")
        await world.connection.execute("SELECT setval('cold_clock', 5000000)")
        await world.connection.execute("UPDATE shard SET clock_us = 9000000")
        async with holding(world) as before:
            pass
        await world.connection.execute("UPDATE tick SET clock_us = 9500000, ticked_at = now() - interval '0.1 s'")
        async with holding(world) as between:
            return [*before, *between]

    before, (due, now) = world.run(told())
    assert before == (9 * SECOND, 9 * SECOND)
    assert due == 9_500_000
    assert 9_600_000 <= now <= 9_750_000


def test_who_moves_the_shard_row_is_not_passed_by(world: World, cold: ColdStore) -> None:
    async def overlap() -> Sequence[Any]:
        lead = world.lead
        async with holding(world) as first:
            assert first
            moving = asyncio.create_task(world.lead.store.raise_epoch(lead.term, 0))
            await until(lambda: blocked(world), "it waits to move the row", SOON_S, enough=lambda count: count == 1)
            second = asyncio.create_task(_look(world))
            await until(lambda: blocked(world), "the other waits behind it", SOON_S, enough=lambda count: count == 2)
            assert not moving.done()
            assert not second.done()
        async with asyncio.timeout(SOON_S):
            assert await moving > lead.epoch
            return await second

    assert world.run(overlap()) == []


async def blocked(world: World) -> int:
    """How many connections wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with connected(world) as connection:  # the leader's own may be one of them
        [(count,)] = await (await connection.execute(query)).fetchall()
    return int(count)


async def _look(world: World) -> Sequence[Any]:
    async with holding(world) as rows:
        return rows


def test_a_settle_of_what_nobody_has_does_not_hide_it_from_a_fetch(world: World, cold: ColdStore) -> None:
    e, r = message(world.brokers[1], next(world.ids), topic="t/a", priority=0, delay_us=0, ttl_us=0, max_retries=3)

    async def fetched() -> list[int]:
        await cold.enqueue(world.lead.epoch, 0, "cold", lambda *_: Fresh([(e.record, e.body)]))
        async with connected(world) as connection, connection.transaction():
            assert await (await connection.execute(sql("lock_leased"), {"ids": [r.id]})).fetchall() == []
            rows, _ = await cold.fetch(world.lead.epoch, 2**60, "t", ["a"], 10, 30_000, 1 << 20)
            return [int.from_bytes(data[:8]) for data, _ in rows]

    assert len(world.run(fetched())) == 1
