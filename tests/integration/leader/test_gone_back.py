"""PostgreSQL has forgotten a flush, and its leader flushes on before anybody has looked."""

import pytest
from stores import World, message

from mqueue.broker.faults import EpochEnded


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
