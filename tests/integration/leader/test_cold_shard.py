"""Past Redis the leader keeps the shard: the clock goes on, leases end, and messages expire."""

import pytest
from leading import kept_cold
from stores import SECOND, World, message

from mqueue.broker.format import record
from mqueue.broker.store.cold import ColdStore, Fresh
from tests.waiting import until

LONG_US = 3600 * SECOND


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.run(world.fresh())


def test_a_lease_that_nobody_renews_ends(world: World) -> None:
    async def again() -> tuple[int, int]:
        async with kept_cold(world) as cold:
            id = await enqueue(world, cold, ttl_us=0)
            assert await fetch(world, cold, lease_ms=50) == [(id, 0)]
            [found] = await until(lambda: fetch(world, cold, lease_ms=60_000), "it comes again")
            assert await fetch(world, cold, lease_ms=60_000) == []
            return id, found[1]

    id, attempts = world.run(again())
    assert attempts == 1
    assert world.run(world.rows())[id][1] == 1


def test_what_expires_goes_and_the_rest_stays(world: World) -> None:
    async def left() -> tuple[int, set[int]]:
        async with kept_cold(world) as cold:
            await enqueue(world, cold, ttl_us=50_000)
            stays = await enqueue(world, cold, ttl_us=LONG_US)
            rows = await until(world.rows, "the first is gone", enough=lambda rows: len(rows) == 1)
            return stays, set(rows)

    stays, ids = world.run(left())
    assert ids == {stays}
    ledger = world.run(world.ledger())
    assert (ledger["enqueued"], ledger["expired"]) == (2, 1)


async def enqueue(world: World, cold: ColdStore, ttl_us: int) -> int:
    broker, id = world.brokers[1], next(world.ids)
    broker.shard.clocks.saw(0, (await world.store.row()).clock_us, broker.shard.clock.monotonic())
    made, _ = message(broker, id, topic="n/a", priority=0, delay_us=0, ttl_us=ttl_us, max_retries=3)
    await cold.enqueue(world.lead.epoch, 0, "cold", lambda *_: Fresh([(made.record, made.body)]))
    return id


async def fetch(world: World, cold: ColdStore, lease_ms: int) -> list[tuple[int, int]]:
    """Returns id and attempts of what it leases."""
    rows, _ = await cold.fetch(world.lead.epoch, 0, "n", ["a"], 10, lease_ms, 1 << 20)
    return [(r.id, r.attempts) for r in (record.unpack(data) for data, _ in rows)]
