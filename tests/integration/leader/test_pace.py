"""A flush takes less where PostgreSQL is slow, or holds it up; what it cannot write waits, and nothing is lost."""

import pytest
from stores import World, message

from mqueue.broker.daemons.flusher import FAST_S, IDS_MAX, IDS_MIN, SLOW_S, Flusher, Pace
from mqueue.broker.faults import StoreLost


def test_the_pace_falls_and_rises_between_its_bounds() -> None:
    pace = Pace()
    for _ in range(20):
        pace.took(SLOW_S + 1)
    assert pace.ids == IDS_MIN
    pace.took((SLOW_S + FAST_S) / 2)
    assert pace.ids == IDS_MIN
    for _ in range(20):
        pace.took(FAST_S / 2)
    assert pace.ids == IDS_MAX


def test_a_table_that_is_locked_holds_up_a_flush_and_loses_nothing(world: World) -> None:
    world.run(world.fresh())
    broker, flusher = world.brokers[1], Flusher(0)
    made = [message(broker, next(world.ids), topic="t/a", priority=0, delay_us=0, ttl_us=0, max_retries=3) for _ in range(120)]

    async def held_up() -> tuple[int, int, list[int]]:
        for n in range(0, 120, 10):
            broker.shard.next_sequence()
            await broker.batch([e for e, _ in made[n : n + 10]], [], logged=True, repeated=False)
        await world.tick()
        lead = world.lead
        await world.connection.execute("SET lock_timeout = 50")
        other = await world.store.connect()
        async with other.transaction():
            await other.execute("LOCK TABLE message IN EXCLUSIVE MODE")
            for _ in range(8):
                with pytest.raises(StoreLost):
                    await flusher.flush(lead, everything=True)
        await other.close()
        await world.connection.execute("SET lock_timeout = 5000")
        slow = flusher._pace.ids
        pages = []
        while (flushed := await flusher.flush(lead, everything=True)).pages:
            pages.append(len(await world.rows()))
            if not flushed.more:
                break
        return slow, len(await world.rows()), pages

    slow, rows, pages = world.run(held_up())
    assert (slow, rows) == (IDS_MIN, 120)
    assert pages[0] < 120
    assert flusher._pace.ids > IDS_MIN
