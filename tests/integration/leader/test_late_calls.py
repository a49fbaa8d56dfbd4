"""A script call whose caller gave up may still be on its way: it changes nothing when it comes after others."""

from typing import Any

import pytest
from leading import SOON_S, leader_of, led
from stores import LIMITS, NUMBER, World, message

from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.faults import Behind, CacheLost, Deposed
from mqueue.broker.store.leader.store import LEADER_LOCK
from mqueue.message import BODY_MAX
from tests.waiting import until

TOPIC = "n/a"


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.run(world.fresh())


async def enqueue(world: World) -> None:
    broker = world.brokers[1]
    broker.shard.next_sequence()
    e, _ = message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=5)
    await broker.batch([e], [], logged=True, repeated=False)


def test_a_late_join_takes_nothing_back(world: World) -> None:
    async def late() -> None:
        shard = world.brokers[1].shard
        applied, _, _ = await world.cache.join(shard.epoch, 1, None)
        await enqueue(world)
        with pytest.raises(Behind):
            await world.cache.join(shard.epoch, 1, shard.previous - 1, applied)
        await enqueue(world)  # it goes on: what it names as its predecessor is what is applied

    world.run(late())


def test_a_late_end_of_a_refill_is_of_a_term_that_is_over(world: World) -> None:
    async def late() -> None:
        lead = world.lead
        await enqueue(world)
        await world.work([])
        begun = await world.cache.refill_begin(lead.epoch, lead.term, [TOPIC])
        frontier, _ = begun.topics[TOPIC]
        pages = await lead.store.pages.refill({TOPIC: (frontier, 100)}, begun.clock, begun.t_due, begun.t_id, 100, BODY_MAX)
        old = lead.term
        world.term = lead.term = await lead.store.raise_term(0, 1)
        await world.cache.lead(lead.term, lead.shared.token, LIMITS)
        await world.prefetcher.refill(lead, [TOPIC])
        with pytest.raises(Deposed):
            await world.cache.refill_end(lead.epoch, old, pages)

    world.run(late())


class Silent(ReadyCache):
    """Does not answer a tick when it is told so."""

    silent = False

    async def tick(self, epoch: int, term: int, wall_us: int, node: int = 0, wait_us: int = 0) -> Any:
        if self.silent:
            self.silent = False
            raise CacheLost("no answer")
        return await super().tick(epoch, term, wall_us, node, wait_us)


def test_a_leader_that_gave_up_a_call_goes_on_in_another_term(world: World) -> None:
    async def terms() -> tuple[int, int]:
        cache = Silent(NUMBER, world.urls.redis_addrs[0], world.urls.redis_password)
        leader = leader_of(world, 1, cache)
        async with led(world, leader):
            before = (await world.store.row()).term
            cache.silent = True
            row = await until(world.store.row, "another term", SOON_S, enough=lambda row: row.term != before)
            return before, row.term

    before, after = world.run(terms())
    assert after == before + 1


def test_a_session_of_its_own_that_nobody_is_behind_does_not_keep_a_broker_from_leading(world: World) -> None:
    """As its host lost power, or its network was away, and PostgreSQL has not noticed."""

    async def leads() -> None:
        half_open = await world.store.connect()
        await half_open.execute("SELECT pg_advisory_lock(%s)", (LEADER_LOCK + NUMBER,))
        await world.store.heartbeat(1, world.lead.epoch, world.lead.term, 0, world.time.wall_us())
        try:
            async with led(world, leader_of(world, 1, world.cache)):
                pass
        finally:
            await half_open.close()

    world.run(leads())
