"""The work of a leader on a hot shard has lanes: flush, refill, time scan, arrivals and schedules, housekeeping. Each
has a connection, deadlines and failures of its own (`lanes.py`).

A flush does not report to Redis between a page and the script that takes its rows: whoever reads pages, and the flush
for its report, take turns in the order of asking (`lead.Shared`), each for one bounded step. A flush that PostgreSQL
holds up holds up nobody.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

import structlog

from mqueue.broker.daemons import lanes
from mqueue.broker.daemons.auditor import Auditor
from mqueue.broker.daemons.flusher import Flusher
from mqueue.broker.daemons.key_mover import KeyMover
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.mirror import Mirror
from mqueue.broker.daemons.prefetcher import Prefetcher
from mqueue.broker.daemons.pruner import Pruner
from mqueue.broker.daemons.reconciler import Reconciler
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.faults import EpochEnded, Fault, StoreLost
from mqueue.broker.shard import Shard

TICK_S, TICK_MAX_S = 0.02, 0.25  # between two ticks: at least, and at most where nothing is due
SCAN_EVERY_S = 0.25
ARRIVALS_EVERY_S = 0.25
PRUNE_EVERY_S = 5.0
EVICT_EVERY_S = 15.0
RECONCILE_EVERY_S = 1.0  # a page of one topic
MIRROR_EVERY_S = 2.0
AUDIT_EVERY_S = 60.0  # between two turns over all topics
AUDIT_PAUSES = 4  # after each topic, as many times what it took
MEASURE_EVERY_S = 2.0
FOLLOW_EVERY_S = 2.0
ASK_LOOK_S = 1.0  # between two looks at what is asked for: a bell may get lost with a leader
FLUSH_EVERY_S = 0.02  # between two flushes, at least
REFILL_TOPICS_MAX = 400  # in one statement

logger = structlog.get_logger(__name__)


class Work:
    """Makes the loops of one leadership."""

    def __init__(self, scheduler: Scheduler, *, flush_age_us: int, horizon_us: int, idle_us: int) -> None:
        self._scheduler = scheduler
        self._age_s = flush_age_us / 1e6
        self._idle_us = idle_us
        self._flusher = Flusher(flush_age_us)
        self._prefetcher = Prefetcher(horizon_us)
        self._pruner = Pruner()
        self._reconciler = Reconciler()
        self._mirror = Mirror()
        self._key_mover = KeyMover()
        self._flush_all = asyncio.Event()
        self._flushed_all = asyncio.Event()

    def loops(self, lead: Lead) -> list[Coroutine[None, None, None]]:
        """Returns what runs until the term ends."""
        return [
            self._tick(lead),
            self._measure(lead),
            self._audit(lead),
            self._follow(lead),
            lanes.run(lead, "scan", self._scan),  # first of the lanes, since the due clock stands still until then
            lanes.run(lead, "flush", self._flush),
            lanes.run(lead, "refill", self._refill),
            lanes.run(lead, "arrivals", self._arrivals),
            lanes.run(lead, "housekeeping", self._keep_house),
        ]

    async def flush_all(self, shard: Shard, timeout: float) -> None:
        """Flushes until nothing waits of what was there."""
        self._flushed_all.clear()
        self._flush_all.set()
        with suppress(TimeoutError, Fault):
            await shard.cache.ask_flush()
            async with asyncio.timeout(timeout):
                await self._flushed_all.wait()

    # -- lanes ---------------------------------------------------------------------------------------------------------

    async def _flush(self, lead: Lead) -> None:
        now, flush_at = lead.shard.clock.monotonic, 0.0
        while True:
            asked = await lead.shard.cache.wait_for_flush(min(ASK_LOOK_S, max(0.0, flush_at - now())))
            everything = asked or self._flush_all.is_set()
            if not everything and now() < flush_at:
                continue
            flushed = await self._flusher.flush(lead, everything)
            while everything and flushed.more:
                flushed = await self._flusher.flush(lead, everything)
            # little at a time would cost a transaction each; a full one or several pages mean that more is waiting
            flush_at = now() if flushed.more or flushed.pages > 1 else now() + max(FLUSH_EVERY_S, self._age_s)
            if everything:  # all that was there: others may go on enqueueing
                self._flush_all.clear()
                self._flushed_all.set()

    async def _refill(self, lead: Lead) -> None:
        """Gives each namespace its turn: one page, of all of its topics that ask or of as many as fit."""
        cache = lead.shard.cache
        while True:
            if topics := await cache.take_asked(lead.epoch, lead.term, REFILL_TOPICS_MAX):
                await self._prefetcher.refill(lead, topics)
            else:
                await cache.wait_for_ask(ASK_LOOK_S)

    async def _scan(self, lead: Lead) -> None:
        while True:
            await self._prefetcher.relieve(lead)
            await self._prefetcher.scan(lead)
            await asyncio.sleep(SCAN_EVERY_S)

    async def _arrivals(self, lead: Lead) -> None:
        shard = lead.shard
        while True:
            await self._scheduler.enqueue_due(lead, shard.clocks.most_us(), announce=True)  # what is due arrives
            await self._prefetcher.arrivals(lead)
            await asyncio.sleep(ARRIVALS_EVERY_S)

    async def _keep_house(self, lead: Lead) -> None:
        now = lead.shard.clock.monotonic
        prune_at, evict_at = now() + PRUNE_EVERY_S, now() + EVICT_EVERY_S
        reconcile_at, mirror_at = now() + RECONCILE_EVERY_S, now() + MIRROR_EVERY_S
        while True:
            await asyncio.sleep(max(0.0, min(prune_at, reconcile_at, mirror_at) - now()))
            if now() >= mirror_at:
                lead.shard.metrics.mirrored.set(await self._mirror.mirror(lead))
                mirror_at = now() + MIRROR_EVERY_S
            if now() >= reconcile_at:
                await self._reconciler.reconcile(lead)
                reconcile_at = now() + RECONCILE_EVERY_S
            if now() >= prune_at:
                prune_at = now() if await self._pruner.prune(lead) else now() + PRUNE_EVERY_S
                await self._key_mover.move(lead)
                if now() >= evict_at:  # PostgreSQL has just answered: what goes from Redis can come back
                    await self._prefetcher.evict(lead, self._idle_us)
                    evict_at = now() + EVICT_EVERY_S

    # -- beside the lanes ----------------------------------------------------------------------------------------------

    async def _tick(self, lead: Lead) -> None:
        shard = lead.shard
        jumps: int | None = None
        while True:
            asked_at = shard.clock.monotonic()
            shard.due.clear()
            tick = await shard.cache.tick(lead.epoch, lead.term, shard.clock.wall_us(), shard.node, int(TICK_MAX_S * 1e6))
            shard.clocks.saw(0, tick.clock, asked_at)
            shard.metrics.clock_ahead_seconds.set(tick.lag / 1e6)
            if tick.jumps != jumps:
                if jumps is not None:
                    logger.warning("the clock of Redis has jumped", shard=shard.number, ahead_s=tick.lag / 1e6)
                jumps = tick.jumps
            await asyncio.sleep(TICK_S)
            if tick.wait / 1e6 > TICK_S:
                with suppress(TimeoutError):
                    async with asyncio.timeout(tick.wait / 1e6 - TICK_S):
                        await shard.due.wait()

    async def _audit(self, lead: Lead) -> None:
        """Does the ledger add up? Rows are counted, so it is seldom looked at, topic by topic, and beside the work."""
        shard, now = lead.shard, lead.shard.clock.monotonic
        auditor = Auditor()
        while True:
            began, more = now(), False
            with suppress(StoreLost):
                more = await auditor.look(shard.store)
            if auditor.drift is not None:
                shard.metrics.drift.set(auditor.drift)
            await asyncio.sleep(AUDIT_PAUSES * (now() - began) if more else AUDIT_EVERY_S)

    async def _follow(self, lead: Lead) -> None:
        """Is this still the master that the sentinels name? Beside the work: those that are silent take their time."""
        while True:
            if await lead.shard.cache.has_moved():
                raise EpochEnded(None)
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _measure(self, lead: Lead) -> None:
        shard, now = lead.shard, lead.shard.clock.monotonic
        while True:
            began = now()
            depths = await shard.cache.depths(await shard.cache.topics())
            shard.metrics.ready_queue_depth.set(sum(d.ready for d in depths))
            gauges = await shard.cache.gauges()
            shard.metrics.delayed_depth.set(gauges["delayed"])
            shard.metrics.leased.set(gauges["leased"])
            await asyncio.sleep(max(MEASURE_EVERY_S, 20 * (now() - began)))  # with very many topics it is seldom done
