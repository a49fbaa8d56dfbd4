"""After a pause of all brokers the first of them that asks for the clock lets it catch up: what is enqueued before the
leader's next tick would otherwise be stamped with a clock that stood still, and its TTL and its delay end early by as
much.
"""

import time

from stores import NUMBER, SECOND, World

from mqueue.broker.cache import keys

PAUSE_US = 60 * SECOND
JUMP_US = 5 * SECOND  # of what Redis alone tells so much counts


def test_whoever_asks_after_a_pause_is_told_a_clock_that_has_caught_up(world: World) -> None:
    world.run(world.fresh())

    async def behind_after(wall_us: int) -> int:
        """By how much it is behind, in µs, when it stood still for a minute, and a broker whose clock says so asks."""
        began = time.time_ns() // 1000 - PAUSE_US
        await world.cache._redis.hset(keys.shard(NUMBER), mapping={"clock": began, "seen": began, "held": 0})
        clocks = await world.cache.clocks(world.lead.epoch, wall_us)
        return time.time_ns() // 1000 - clocks.clock

    assert world.run(behind_after(time.time_ns() // 1000)) < 2 * SECOND
    assert world.run(world.held()) > world.run(world.clock()) + 4 * SECOND, "it is no time of a lease"
    behind = world.run(behind_after(0))
    assert abs(behind - (PAUSE_US - JUMP_US)) < 2 * SECOND, "Redis' clock alone counts for a jump"
    hour_ahead = time.time_ns() // 1000 + 3600 * SECOND
    assert 0 <= world.run(behind_after(hour_ahead)) < 2 * SECOND, "nor does a broker's alone count"
