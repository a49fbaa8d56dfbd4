"""The leader of a cold shard keeps its clock, ends leases, heeds TTLs and schedules, and looks out for Redis."""

import asyncio

import structlog

from mqueue.broker import tasks
from mqueue.broker.daemons.epoch import Epochs
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.pruner import REQUEST_KEPT_S, UNHEARD_S
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.faults import Forgotten
from mqueue.broker.shard import COLD
from mqueue.message import BATCH_MAX

TICK_S = 0.05
PROBE_S = 0.5
BACK = 2  # answers of Redis in a row after which it serves again
PRUNE_EVERY_S = 1.0
SCHEDULE_EVERY_S = 0.25
AWAY_S = 1.0  # no turn for so long: nobody could renew a lease,
HOLD_S = 5.0  # and so long after that none ends; as lib/unit.lua has it

logger = structlog.get_logger(__name__)


class ColdShard:
    def __init__(self, epochs: Epochs, scheduler: Scheduler) -> None:
        self._epochs = epochs
        self._scheduler = scheduler

    async def keep(self, lead: Lead) -> None:
        """Does that work until Redis is back. Raises Fault where another broker reaches Redis, or this one leads no
        more.
        """
        keeping = asyncio.create_task(self._tick(lead))
        probing = asyncio.create_task(self._probe(lead))
        try:
            await asyncio.wait({keeping, probing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (keeping, probing):
                if task.done():
                    task.result()
        finally:
            await tasks.end((keeping, probing))

    async def _probe(self, lead: Lead) -> None:
        answers = 0
        while answers < BACK:
            await asyncio.sleep(PROBE_S)
            if await self._epochs.set_back(lead, COLD):
                raise Forgotten
            if await self._epochs.reach(lead, 0.0) is None:
                answers = 0
                await self._epochs.give_way(lead)
            else:
                answers += 1
        logger.info("Redis is back", shard=lead.shard.number)

    async def _tick(self, lead: Lead) -> None:
        """The clock goes on by this broker's monotonic one: no wall clock decides."""
        shard, now = lead.shard, lead.shard.clock.monotonic
        clock = max((await shard.store.row()).clock_us, shard.now_us())
        began, prune_at, schedule_at = now(), 0.0, 0.0
        turned_at, ends_at = now(), now() + HOLD_S  # Redis was away, and leases could not be renewed there

        def went_on() -> int:
            nonlocal began
            went, began = clock + int((now() - began) * 1e6), now()
            return went

        while True:
            if now() - turned_at > AWAY_S:
                ends_at = now() + HOLD_S
            turned_at = now()
            prunes = turned_at >= prune_at
            expires = BATCH_MAX if prunes else 0
            clock, ended, expired, refused = await lead.store.cold.turn(
                lead.epoch, lead.term, went_on, shard.clock.wall_us, expires, ends=turned_at >= ends_at
            )
            shard.set_aside(refused)
            if prunes and not expired:
                await lead.store.prunes.keys(clock, BATCH_MAX)
                await lead.store.prunes.cancel_requests(REQUEST_KEPT_S, BATCH_MAX)
                await lead.store.prunes.results(BATCH_MAX)
                await lead.store.prunes.workers(UNHEARD_S)
                prune_at = now() + PRUNE_EVERY_S
            if now() >= schedule_at:
                await self._scheduler.enqueue_due(lead, clock, announce=False)
                schedule_at = now() + SCHEDULE_EVERY_S
            if ended == 0:
                await asyncio.sleep(TICK_S)
