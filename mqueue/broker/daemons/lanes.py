"""A lane is one part of the leader's work that fails alone: it has a connection of its own, whose statements have a
deadline of their own.

Where PostgreSQL does not answer a lane, it backs off and begins anew on a fresh connection; the others go on. Only what
tells that the fence is lost (Deposed, EpochEnded), or that Redis does not answer, ends the term with it; that the
session with the leader's lock has ended is noticed by whoever keeps it (`leader.py`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from mqueue.broker.daemons.lead import Lead
from mqueue.broker.faults import StoreLost
from mqueue.broker.store.leader.store import LeaderStore

FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0
HEALTHY_S = 5.0  # a lane that has worked for so long begins anew without a pause
LOG_EVERY = 30  # failures in a row

logger = structlog.get_logger(__name__)


def pause_after(failures: int) -> float:
    """Returns how long a lane waits after so many failures in a row, at most. It is pure."""
    return float(min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10)))


async def run(lead: Lead, name: str, work: Callable[[Lead], Awaitable[None]]) -> None:
    """Runs `work`, which never ends by itself, again and again. `name`: the kind of its connection."""
    shard, failures = lead.shard, 0
    while True:
        began = shard.clock.monotonic()
        store: LeaderStore | None = None
        try:
            store = await LeaderStore.connect(shard.store, name)
            await work(lead.on(store))
        except StoreLost as lost:
            failures = 1 if shard.clock.monotonic() - began > HEALTHY_S else failures + 1
            shard.metrics.lane_failures.inc()
            if failures % LOG_EVERY == 1:
                logger.warning("a part of the leader's work begins anew", shard=shard.number, part=name, failures=failures, reason=str(lost))
        finally:
            if store is not None:
                await store.close()
        await asyncio.sleep(pause_after(failures) * (0.5 + random.random() / 2))
