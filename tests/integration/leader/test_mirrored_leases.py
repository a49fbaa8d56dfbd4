"""Leases PostgreSQL knows: those that run are all there when a new epoch begins, those that ended are not."""

from typing import Any

import pytest
from stores import SECOND, World, message

from mqueue.broker.cache.calls import SettleArgs
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.mirror import Mirror
from mqueue.broker.format import record
from mqueue.broker.store.cold import ColdStore
from mqueue.broker.store.leader.store import Opening

TOPIC = "n/a"


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.run(world.fresh())


async def leased(world: World) -> record.Record:
    """A message that node 1 enqueued, flushed, and leased for a minute."""
    broker = world.brokers[1]
    broker.shard.next_sequence()
    e, _ = message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=5)
    await broker.batch([e], [], logged=True, repeated=False)
    await world.work([TOPIC])
    got = await world.cache.fetch(broker.shard.epoch, 1, [TOPIC], 1, 60_000, False)
    return record.unpack(got.records[0])


async def mirrored(world: World) -> list[Any]:
    return [id for (id,) in await (await world.connection.execute("SELECT id FROM lease ORDER BY id")).fetchall()]


async def mirror(world: World, looks: int) -> None:
    mirror = Mirror()
    for _ in range(looks):
        await mirror.mirror(world.lead)


async def settle(world: World, r: record.Record, kind: str, delays: bytes = b"") -> None:
    broker = world.brokers[1]
    broker.shard.next_sequence()
    settled = SettleArgs(r.id.to_bytes(8), TOPIC.encode(), kind, r.receipt, b"", delays)
    applied = await broker.batch([], [settled], logged=True, repeated=False)
    assert applied.outcomes[0].verdict == b"o"


def test_leases_without_a_message_hide_no_others(world: World) -> None:
    async def loaded() -> tuple[int, list[int]]:
        r = await leased(world)
        clock = (await world.store.row()).clock_us
        of_nothing = "INSERT INTO lease SELECT n, 1, 1, %s FROM generate_series(1, 100) n"
        await world.connection.execute(of_nothing, (clock + 60 * SECOND,))
        await world.connection.execute("INSERT INTO lease VALUES (%s, 1, 1, %s)", (r.id, clock + 60 * SECOND))
        return r.id, [id for id, _, _ in await Opening(world.session, (clock, clock)).live_leases(0, 100)]

    id, found = world.run(loaded())
    assert found == [id]


@pytest.mark.parametrize(("kind", "delays"), [("ack", b""), ("nack", bytes(8)), ("bury", bytes(8))])
def test_a_replayed_settle_ends_the_mirrored_lease(world: World, kind: str, delays: bytes) -> None:
    async def left() -> list[Any]:
        r = await leased(world)
        await mirror(world, 2)
        assert await mirrored(world) == [r.id]
        await settle(world, r, kind, delays)
        await world.lose_redis(True, (1, 2))
        return await mirrored(world)

    assert world.run(left()) == []


def test_the_first_look_of_a_leader_drops_nothing(world: World) -> None:
    async def looked() -> tuple[int, list[list[Any]]]:
        r = await leased(world)
        await mirror(world, 2)
        world.lead = Lead(world.brokers[1].shard, world.leader, world.term, world.lead.epoch)
        new, seen = Mirror(), []
        for _ in range(2):
            await new.mirror(world.lead)
            seen.append(await mirrored(world))
        await settle(world, r, "ack")
        for _ in range(2):
            await new.mirror(world.lead)
        seen.append(await mirrored(world))
        return r.id, seen

    id, seen = world.run(looked())
    assert seen == [[id], [id], []]


def test_a_lease_that_ran_out_between_cold_and_hot_goes(world: World) -> None:
    async def left() -> list[Any]:
        r = await leased(world)
        await settle(world, r, "nack", bytes(8))
        await world.work([TOPIC])
        epoch = await world.leader.raise_epoch(world.term, 0)
        await world.leader.open_cold(epoch, world.term, 1, 0)
        clock = (await world.store.row()).clock_us
        got, _ = await ColdStore(world.store).fetch(epoch, clock, "n", ["a"], 1, 1, 1 << 20)
        assert len(got) == 1
        await world.connection.execute("UPDATE shard SET clock_us = clock_us + 10000000")
        await world._next_epoch()
        assert await mirrored(world) == [r.id]
        await mirror(world, 2)
        return await mirrored(world)

    assert world.run(left()) == []
