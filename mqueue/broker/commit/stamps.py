"""A stamp is the time at which a message is due that is due at once. It is decided when its batch begins, and lies
between two moments: not behind what was due before the request came, nor ahead of the clock when it is answered.

So order is by when a message was enqueued, whatever the brokers, and however quiet they were. Where this broker knows
the clock well enough nothing is asked (`shard_clock.py`); where it does not, one call of Redis tells.
"""

import asyncio
from contextlib import suppress

from mqueue.broker.faults import CacheLost, EpochEnded, Fault, Refused
from mqueue.broker.shard import Shard

RETRY_S, ASK_S = 0.05, 5.0  # between two tries, and in all
AHEAD_S = 1.0  # an answer waits so long for the clock to reach its stamp; by more the clock has jumped


async def at_once(shard: Shard) -> int:
    """Returns the stamp. Raises Refused where the epoch has ended, CacheLost where Redis does not answer for long:
    nothing of the batch has happened.
    """
    epoch, deadline = shard.epoch, shard.clock.monotonic() + ASK_S
    while (stamp := shard.clocks.at_once()) is None:
        asked_at = shard.clock.monotonic()
        try:
            clocks = await shard.cache.clocks(epoch, shard.clock.wall_us())
        except EpochEnded as ended:
            raise Refused(ended.found) from ended
        except CacheLost as lost:
            shard.suspect.set()
            if not shard.serving.is_set() or shard.epoch != epoch:
                raise Refused(None) from lost
            if shard.clock.monotonic() >= deadline:
                raise
            await asyncio.sleep(RETRY_S)
            continue
        shard.clocks.saw(clocks.due_clock, clocks.clock, asked_at, clocks.frontier)
        return clocks.due_clock  # true when it was told, which was after the requests came
    return stamp


async def until_due(shard: Shard, stamp: int, clock: int) -> None:
    """Waits until what was stamped so is due, where it was a little ahead of `clock`, by which its batch was applied:
    what is enqueued elsewhere after the answer must not come before it.
    """
    if stamp <= clock:
        return
    ahead_s = min((stamp - clock) / 1e6, AHEAD_S)
    await asyncio.sleep(ahead_s)
    with suppress(Fault):  # it is in the log and in Redis, and the next tick places it
        await shard.cache.clocks(shard.epoch, shard.clock.wall_us())
