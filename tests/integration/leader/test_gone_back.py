"""PostgreSQL has forgotten a flush, and its leader flushes on before anybody has looked. Or it has forgotten a term, or
a closing, and gives the number again.
"""

import pytest
from stores import LIMITS, World, message

from mqueue.broker.faults import Deposed, EpochEnded


def test_a_flush_does_not_go_on_past_one_that_was_forgotten(world: World) -> None:
    """Else the positions would pass what the logs alone have now."""
    world.run(world.fresh())
    broker = world.brokers[1]
    for _ in range(2):
        broker.shard.next_sequence()
        enqueue, _ = message(broker, next(world.ids), topic="t/a", priority=0, delay_us=0, ttl_us=0, max_retries=3)
        world.run(broker.batch([enqueue], [], logged=True, repeated=False))
        if broker.shard.sequence == 1:
            world.run(world.flusher.flush(world.lead, everything=True))
            world.run(world.connection.execute("DELETE FROM message"))
            world.run(world.connection.execute("UPDATE shard SET dirty_number = 0"))
            world.run(world.connection.execute("UPDATE broker SET position = 0"))
    with pytest.raises(EpochEnded):
        world.run(world.flusher.flush(world.lead, everything=True))
    assert world.run(world.store.position(1)) == 0


def test_a_term_that_was_forgotten_is_not_led_twice(world: World) -> None:
    world.run(world.fresh())
    term, token = world.lead.term, world.lead.shared.token
    world.run(world.cache.lead(term, token, LIMITS))
    world.run(world.cache.lead(term, token, LIMITS))  # its answer was lost
    with pytest.raises(Deposed):
        world.run(world.cache.lead(term, "another leadership", LIMITS))


def test_what_was_confirmed_of_a_closing_that_was_forgotten_counts_for_no_other(world: World) -> None:
    """Else the next epoch would open without the log of that broker."""
    world.run(world.fresh())
    epoch, term, wall_us = world.lead.epoch, world.term, world.time.wall_us()

    async def confirmed() -> int:
        (row,) = [b for b in await world.store.brokers() if b.node == 1]
        return row.replayed

    world.run(world.store.heartbeat(1, epoch + 1, term - 1, 0, wall_us))
    assert world.run(confirmed()) == epoch, "it was confirmed in another term"
    world.run(world.store.heartbeat(1, epoch + 1, term, 0, wall_us))
    assert world.run(confirmed()) == epoch + 1
    assert world.run(world.leader.raise_epoch(term, 0)) == epoch + 2
