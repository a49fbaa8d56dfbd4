"""What Redis holds of a shard is bounded in bytes, whatever messages weigh, and all of it comes in order."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from stores import LIMITS, NODES, SECOND, World, message

from mqueue.broker.cache.calls import Enqueue, Limits, SettleArgs
from mqueue.broker.daemons.prefetcher import to_evict
from mqueue.broker.format import record

MB = 1 << 20
ROOMY = Limits(ready_cap=7_500, ready_hard=10_000, delayed_max=100_000, buffer_max=8 * MB, redis_max=24 * MB)
TOPICS = tuple(f"t/{n}" for n in range(3))
LARGE, SMALL = 256 * 1024, 1
ALLOWED = 1.1
ROUNDS_MAX = 400  # of the leader, within which everything must come


@pytest.fixture
def roomy(world: World) -> Iterator[World]:
    """Its limits are as a broker has them, but for the budget."""
    world.run(world.fresh())
    world.run(world.cache.lead(world.lead.term, world.lead.shared.token, ROOMY))
    yield world
    world.run(world.cache.lead(world.lead.term, world.lead.shared.token, LIMITS))


async def used(world: World) -> int:
    return int((await world.cache._redis.info("memory"))["used_memory"])


async def enqueue(world: World, topic: str, size: int, many: int, delay_us: int = 0) -> list[bytes]:
    """Enqueues as a broker does. Returns the verdicts' letters."""
    broker = world.brokers[NODES[0]]
    broker.shard.next_sequence()
    made: list[Enqueue] = []
    for _ in range(many):
        id = next(world.ids)
        e, r = message(broker, id, topic=topic, priority=0 if delay_us else id % 3, delay_us=delay_us, ttl_us=0, max_retries=3)
        body = record.body(broker.shard.clocks.due_clock, b"%d " % id + bytes(size), None, None)
        data = record.pack(r._replace(size=record.buffered(len(body), len(topic))))
        made.append(e._replace(record=data, body=body))
    applied = await broker.batch(made, [], logged=True, repeated=False)
    return [letter for letter, _ in applied.verdicts]


async def drain(world: World) -> int:
    """Fetches and acks until nothing is left. Returns how many came; each topic's keys came in order."""
    came, last = 0, dict.fromkeys(TOPICS, b"")
    for _ in range(ROUNDS_MAX):
        await world.advance(SECOND)
        await world.tick()
        for topic in TOPICS:
            got = await world.cache.fetch(world.lead.epoch, NODES[0], [topic], 1_000, 30_000, False)
            for data in got.records:
                assert data[record.KEY] > last[topic], "out of order"
                last[topic] = data[record.KEY]
            came += len(got.records)
            settles = [SettleArgs(data[record.ID], topic.encode(), "ack", data[60:72], b"", b"") for data in got.records]
            if settles:
                world.brokers[NODES[0]].shard.next_sequence()
                await world.brokers[NODES[0]].batch([], settles, logged=True, repeated=False)
        await world.work(TOPICS)
        await world.prefetcher.relieve(world.lead)
        await world.check_used()
        if not await world.rows() and not await world.left_in_redis():
            return came
    raise AssertionError(f"stuck: {len(await world.rows())} rows, {await world.left_in_redis()}")


@pytest.mark.parametrize(
    ("size", "rounds", "many", "delay_us", "budget"), [(LARGE, 20, 8, 0, 24), (LARGE, 20, 8, 3 * SECOND, 24), (SMALL, 40, 1_000, 0, 6)]
)
def test_redis_keeps_its_budget(roomy: World, size: int, rounds: int, many: int, delay_us: int, budget: int) -> None:
    world, limits = roomy, replace(ROOMY, buffer_max=budget * MB // 3, redis_max=budget * MB)
    world.run(world.cache.lead(world.lead.term, world.lead.shared.token, limits))

    async def fill() -> tuple[int, int]:
        await world.work(TOPICS)  # they are open: what comes is ready, and stays when it is flushed
        before, most, there = await used(world), 0, 0
        for n in range(rounds):
            letters = await enqueue(world, TOPICS[n % len(TOPICS)], size, many, delay_us)
            there += letters.count(b"o")
            assert delay_us or set(letters) == {b"o"}, "what is flushed makes room"  # and a T that the clock reaches takes it
            most = max(most, await used(world) - before)
            await world.work(TOPICS[:2])
            await world.prefetcher.relieve(world.lead)
            most = max(most, await used(world) - before)
            await world.check_used()
        return most, there

    most, there = world.run(fill())
    assert most < ALLOWED * limits.redis_max, f"Redis held {most / MB:.0f} MB of {budget}"
    assert world.run(drain(world)) == there


def test_cancels_beside_a_release_end_where_redis_is_past_its_budget(roomy: World) -> None:
    """All of one batch: what is released is placed, counts as too much, and is taken away like those before it."""
    world, topic = roomy, TOPICS[0]

    async def cancelled() -> tuple[list[bytes], dict[str, object]]:
        await world.work(TOPICS)
        await enqueue(world, topic, SMALL, 3)
        got = await world.cache.fetch(world.lead.epoch, NODES[0], [topic], 1, 30_000, False)
        [leased] = got.records
        waiting = [id for id in await world.ready(topic) if id != leased[record.ID]]
        await world.cache.lead(world.lead.term, world.lead.shared.token, replace(ROOMY, redis_max=ROOMY.buffer_max + 1))
        settles = [SettleArgs(id, topic.encode(), "cancel", b"", b"", b"") for id in waiting]
        settles += [SettleArgs(leased[record.ID], topic.encode(), "release", leased[60:72], b"", b"")]
        settles += [SettleArgs(leased[record.ID], topic.encode(), "cancel", b"", b"", b"")]
        world.brokers[NODES[0]].shard.next_sequence()
        applied = await world.brokers[NODES[0]].batch([], settles, logged=True, repeated=False)
        await world.cache.lead(world.lead.term, world.lead.shared.token, ROOMY)
        await world.work(TOPICS)
        await world.check_used()
        return [outcome.verdict for outcome in applied.outcomes], await world.left_in_redis()

    verdicts, left = world.run(cancelled())
    assert (verdicts, left) == ([b"o"] * 4, {})


def test_what_waits_for_its_flush_is_refused_past_the_budget(roomy: World) -> None:
    """Nothing is flushed, so nothing can go."""
    letters = [roomy.run(enqueue(roomy, TOPICS[0], LARGE, 8)) for _ in range(6)]
    assert letters[0] == [b"o"] * 8
    assert letters[-1] == [b"f"] * 8
    assert roomy.run(drain(roomy)) == sum(told.count(b"o") for told in letters)


def test_a_topic_that_is_asked_for_gets_room_from_one_that_is_not(roomy: World) -> None:
    """One topic has all of the budget; another one is opened."""
    world = roomy

    async def work() -> int:
        for _ in range(12):
            await enqueue(world, TOPICS[0], LARGE, 8)
            await world.work(TOPICS[:1])
        for _ in range(3):
            await enqueue(world, TOPICS[1], LARGE, 8)
            await world.work([])
        filled = (await world.cache.crowded(world.lead.epoch, world.lead.term, 0)).used
        assert filled > 0.6 * (ROOMY.redis_max - ROOMY.buffer_max), "the first has not filled it: this proves nothing"
        await world.prefetcher.refill(world.lead, TOPICS[1:2])
        await world.prefetcher.relieve(world.lead)
        await world.prefetcher.refill(world.lead, TOPICS[1:2])
        return (await world.cache.depths(TOPICS[1:2]))[0].ready

    assert world.run(work()) > 0
    assert world.run(drain(world)) == 15 * 8


def test_the_time_frontier_does_not_fall_below_what_was_stamped_ahead(world: World) -> None:
    """A broker's clock is a little ahead of the shard's: what is due at once waits in `delayed`, more of it than may be
    there. Beyond T nobody would find it, since the time scan leaves out what was due when it came.
    """
    world.run(world.fresh())
    broker = world.brokers[NODES[0]]

    async def work() -> tuple[int, tuple[int, int]]:
        await world.prefetcher.scan(world.lead)
        await enqueue(world, TOPICS[0], SMALL, 1)
        broker.shard.next_sequence()
        stamp = broker.shard.clock_us + 2 * SECOND
        made = [
            message(broker, next(world.ids), topic=TOPICS[0], priority=0, delay_us=0, ttl_us=0, max_retries=3, at_once=stamp) for _ in range(6)
        ]
        applied = await broker.batch([e for e, _ in made], [], logged=True, repeated=False)
        assert {letter for letter, _ in applied.verdicts} == {b"o"}
        return stamp, await world.time_frontier()

    stamp, frontier = world.run(work())
    assert frontier[0] > stamp
    assert world.run(drain(world)) == 7


def test_topics_that_nobody_fetches_from_go_first() -> None:
    now = 100 * SECOND
    topics = [("used", now - SECOND, 10), ("used more", now, 30), ("old", 5 * SECOND, 7), ("older", SECOND, 9)]
    assert to_evict(topics, now) == [("older", 0), ("old", 0), ("used more", 15), ("used", 5)]
