"""A shard that is led, for the tests of a daemon: by a leader as a broker runs it, or by its keeper past Redis."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

from stores import LIMITS, NUMBER, World

from mqueue.broker import tasks
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.daemons.cold_shard import ColdShard
from mqueue.broker.daemons.epoch import Epochs, Reached
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.leader import Leader
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.shard import Shard
from mqueue.broker.store.cold import ColdStore
from mqueue.broker.store.leader.store import LeaderStore
from mqueue.broker.wal.ids import IdSource
from mqueue.clock import SystemClock
from tests.waiting import until

SOON_S = 10.0


def leader_of(world: World, node: int, cache: ReadyCache) -> Leader:
    shard = Shard(NUMBER, node, cache, world.store, world.brokers[node].shard.log, SystemClock(), world.metrics, start=0)
    admin = ReadyCache(NUMBER, world.urls.redis_addrs[0], world.urls.redis_password)
    return Leader(shard, admin, LIMITS, _scheduler(), flush_age_us=0, horizon_us=1, idle_us=1 << 60)


@asynccontextmanager
async def led(world: World, leader: Leader) -> AsyncIterator[None]:
    """Lets it lead from the beginning of the block to its end."""
    async with _running(leader.run()):
        await until_leads(world, leader)
        yield


async def until_leads(world: World, leader: Leader) -> None:
    """Waits until it leads, in the epoch that is open."""
    run_id = await world.cache.run_id_of_server()
    timeline = (await world.store.row()).timeline_now
    await world.connection.execute("UPDATE shard SET run_id = %s, timeline = %s", (run_id, timeline))
    await until(lambda: leader.leads, "it leads", SOON_S)


@asynccontextmanager
async def kept_cold(world: World) -> AsyncIterator[ColdStore]:
    """Opens the epoch without Redis, and keeps the shard until the block ends: its clock goes on, leases end, messages
    expire. The keeper has a connection of its own, so that the world's is free for the test.
    """
    store = await LeaderStore.connect(world.store)
    lead = Lead(world.lead.shard, store, world.lead.term, world.lead.epoch)
    row = await world.store.row()
    try:
        await store.open_cold(lead.epoch, lead.term, row.timeline_now, row.clock_us)
        async with _running(ColdShard(Away(), _scheduler()).keep(lead)):
            yield ColdStore(world.store)
    finally:
        await store.close()


class Away(Epochs):
    """No broker reaches Redis."""

    def __init__(self) -> None:
        super().__init__(cast(ReadyCache, None), LIMITS)

    async def reach(self, lead: Lead, patience: float) -> Reached | None:
        return None

    async def give_way(self, lead: Lead) -> None: ...


def _scheduler() -> Scheduler:
    return Scheduler(cast(IdSource, None), lease_s=30, max_retries=3)  # nothing is scheduled


@asynccontextmanager
async def _running(what: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    running = asyncio.create_task(what)
    try:
        yield
        assert not running.done(), "it has ended by itself"
    finally:
        await tasks.end([running])
