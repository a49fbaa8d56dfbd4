"""The leader of a shard is elected, closes and opens epochs, and runs the daemons one after the other.

A session advisory lock in the shard's database elects the leader; a *term* in the shard's row fences it. A new leader
raises the term in PostgreSQL, then in Redis, before it reads anything. Every transaction of its daemons begins by
locking the shard row on epoch and term; every script of theirs carries both. So a leader that was paused and wakes
changes nothing. If Redis does not know the epoch (it was restarted, flushed, replaced), the leader closes it: see
`recovery/membership.py` for the brokers' part.

Flush and refill never interleave: one loop runs both. The tick (clock, due messages, dead leases) is a loop of its own.
"""

import asyncio
import random
from contextlib import suppress

import structlog

from mqueue.broker import tasks
from mqueue.broker.cache.calls import Limits
from mqueue.broker.cache.ready import FLUSH, ReadyCache
from mqueue.broker.daemons.cold_shard import ColdShard
from mqueue.broker.daemons.epoch import COLD_AFTER_S, Epochs, Reached
from mqueue.broker.daemons.flusher import Flusher
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.mirror import Mirror
from mqueue.broker.daemons.prefetcher import Prefetcher
from mqueue.broker.daemons.pruner import Pruner
from mqueue.broker.daemons.reconciler import Reconciler
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.faults import CacheLost, EpochEnded, Fault, GivesWay, StoreLost
from mqueue.broker.shard import COLD, HOT, Shard
from mqueue.broker.store.leader.store import LeaderStore

ELECTION_S = 1.0
TICK_S = 0.02
HANGS_S = 5.0  # without a heartbeat a leader's lock is taken from it
SCAN_EVERY_S = 0.25
ARRIVALS_EVERY_S = 0.25
PRUNE_EVERY_S = 5.0
EVICT_EVERY_S = 15.0
RECONCILE_EVERY_S = 1.0  # a page of one topic
MIRROR_EVERY_S = 2.0
AUDIT_EVERY_S = 60.0
MEASURE_EVERY_S = 2.0
FOLLOW_EVERY_S = 2.0
GIVES_WAY_S = 3.0  # to a broker that reaches Redis
REFILL_S = 0.2  # a due flush waits so long for topics that ask

logger = structlog.get_logger(__name__)


class Leader:
    """Leads a shard, or tries to. `admin`: a cache that takes whatever Redis answers; the shard's own refuses a server
    that does not hold the epoch, also while the leader looks at a new one.
    """

    def __init__(
        self, shard: Shard, admin: ReadyCache, limits: Limits, scheduler: Scheduler, *, flush_age_us: int, horizon_us: int, idle_us: int
    ) -> None:
        self._shard = shard
        self._epochs = Epochs(admin, limits)
        self._cold = ColdShard(self._epochs, scheduler)
        self._scheduler = scheduler
        self._age_s = flush_age_us / 1e6
        self._idle_us = idle_us
        self._flusher = Flusher(flush_age_us)
        self._prefetcher = Prefetcher(horizon_us)
        self._pruner = Pruner()
        self._reconciler = Reconciler()
        self._mirror = Mirror()
        self._flush_all = asyncio.Event()
        self._flushed_all = asyncio.Event()
        self._gave_way_at: float | None = None
        self.leads = False

    async def run(self) -> None:
        while True:
            store: LeaderStore | None = None
            try:
                store = await LeaderStore.connect(self._shard.store)
                while not await self._elected(store):
                    await asyncio.sleep(ELECTION_S * (0.75 + random.random() / 2))
                await self._lead(store)
            except Fault as fault:
                self._gave_way_at = self._shard.clock.monotonic() if isinstance(fault, GivesWay) else None
                logger.warning("not leading", shard=self._shard.number, reason=str(fault))
                await asyncio.sleep(0.2 + random.random() / 5)
            finally:
                self._lead_changed(False)
                if store is not None:
                    await store.close()

    async def _elected(self, store: LeaderStore) -> bool:
        """Tries once to be elected. A broker that cannot reach Redis leaves it to others for a while; a leader that
        hangs loses its lock.
        """
        shard = self._shard
        if self._gave_way_at is not None and shard.clock.monotonic() - self._gave_way_at < GIVES_WAY_S:
            return False
        if await store.try_lock():
            return True
        if await store.unseat(shard.node, HANGS_S):
            logger.warning("the leader hangs: its lock is free", shard=shard.number)
        return False

    async def flush_all(self, timeout: float) -> None:
        """Flushes until nothing waits, for a clean stop, if this broker leads."""
        if self.leads and self._shard.mode == HOT:
            self._flushed_all.clear()
            self._flush_all.set()
            with suppress(TimeoutError, Fault):
                await self._shard.cache.ask_flush()
                async with asyncio.timeout(timeout):
                    await self._flushed_all.wait()

    def _lead_changed(self, leads: bool) -> None:
        self.leads = leads
        self._shard.metrics.leader.set(leads)

    # -- one term ------------------------------------------------------------------------------------------------------

    async def _lead(self, store: LeaderStore) -> None:
        shard = self._shard
        lead = Lead(shard, store, await store.raise_term(0, shard.node), 0)
        reached = await self._epochs.reach(lead, COLD_AFTER_S)
        if reached is None:
            await self._epochs.give_way(lead)
        self._lead_changed(True)
        logger.info("leading", shard=shard.number, term=lead.term)
        while True:
            row = await shard.store.row()
            if self._epochs.goes_on(row, reached):
                lead.epoch, mode = row.epoch, row.mode
                shard.cache.run_id = row.run_id
            else:
                mode = await self._epochs.reopen(lead, reached.epoch or 0 if reached else 0)
            shard.suspect.set()
            try:
                if mode == COLD:
                    await self._cold.keep(lead)
                else:
                    await self._serve(lead)
            except EpochEnded as ended:
                logger.warning("the epoch has ended", shard=shard.number, epoch=lead.epoch, reason=str(ended))
                shard.lost()
                reached = Reached(None, "")
                continue
            except CacheLost as lost:
                logger.warning("Redis does not answer", shard=shard.number, reason=str(lost))
                await asyncio.sleep(0.1)
                lead.term = await lead.store.raise_term(0, shard.node)  # a call that was given up may still be on its way there
            reached = await self._epochs.reach(lead, COLD_AFTER_S)
            if reached is None:
                await self._epochs.give_way(lead)

    async def _serve(self, lead: Lead) -> None:
        loops = [asyncio.create_task(loop(lead)) for loop in (self._tick, self._work, self._audit, self._follow)]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await tasks.end(loops)
            lead.shard.metrics.clock_ahead_seconds.set(0.0)  # nobody measures it any more

    async def _tick(self, lead: Lead) -> None:
        shard = lead.shard
        jumps: int | None = None
        while True:
            asked_at = shard.clock.monotonic()
            tick = await shard.cache.tick(lead.epoch, lead.term, shard.clock.wall_us())
            shard.saw_clock(0, tick.clock, asked_at)
            shard.metrics.clock_ahead_seconds.set(tick.lag / 1e6)
            if tick.jumps != jumps:
                if jumps is not None:
                    logger.warning("the clock of Redis has jumped", shard=shard.number, ahead_s=tick.lag / 1e6)
                jumps = tick.jumps
            await asyncio.sleep(TICK_S)

    async def _audit(self, lead: Lead) -> None:
        """Does the ledger add up? Rows are counted, so it is seldom looked at, and beside the work."""
        shard = lead.shard
        while True:
            with suppress(StoreLost):
                lines = await shard.store.ledger()
                shard.metrics.drift.set(sum(abs(line[2] - sum(line[3:])) for line in lines))
            await asyncio.sleep(AUDIT_EVERY_S)

    async def _follow(self, lead: Lead) -> None:
        """Is this still the master that the sentinels name? Beside the work: those that are silent take their time."""
        while True:
            if await lead.shard.cache.has_moved():
                raise EpochEnded(None)
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _work(self, lead: Lead) -> None:
        """Does all periodic work of a leader, on one screen."""
        shard, now = self._shard, self._shard.clock.monotonic
        scan_at = arrivals_at = flush_at = measure_at = 0.0
        prune_at, evict_at = now() + PRUNE_EVERY_S, now() + EVICT_EVERY_S
        reconcile_at, mirror_at = now() + RECONCILE_EVERY_S, now() + MIRROR_EVERY_S
        await self._prefetcher.scan(lead)  # first of all, since the due clock stands still until then
        while True:
            await self._refill_asked(lead, max(0.0, min(flush_at, scan_at, arrivals_at) - now()))
            everything = self._flush_all.is_set()
            if everything or now() >= flush_at:
                flushed = await self._flusher.flush(lead, everything)
                # little at a time would cost a transaction each; a full one or several pages mean that more is waiting
                flush_at = now() if flushed.more or flushed.pages > 1 or everything else now() + max(0.02, self._age_s / 4)
                if everything and not flushed.more:  # all that was there: others may go on enqueueing
                    self._flush_all.clear()
                    self._flushed_all.set()
            if now() >= scan_at:
                await self._prefetcher.relieve(lead)
                await self._prefetcher.scan(lead)
                scan_at = now() + SCAN_EVERY_S
            if now() >= arrivals_at:
                await self._scheduler.enqueue_due(lead, max(shard.due_clock, shard.now_us()), announce=True)  # what is due arrives
                await self._prefetcher.arrivals(lead)
                arrivals_at = now() + ARRIVALS_EVERY_S
            if now() >= prune_at:
                prune_at = now() if await self._pruner.prune(lead) else now() + PRUNE_EVERY_S
            if now() >= reconcile_at:
                await self._reconciler.reconcile(lead)
                reconcile_at = now() + RECONCILE_EVERY_S
            if now() >= mirror_at:
                shard.metrics.mirrored.set(await self._mirror.mirror(lead))
                mirror_at = now() + MIRROR_EVERY_S
            if now() >= evict_at:
                await self._prefetcher.evict(lead, self._idle_us)
                evict_at = now() + EVICT_EVERY_S
            if now() >= measure_at:
                began = now()
                await self._measure(lead)
                measure_at = now() + max(MEASURE_EVERY_S, 20 * (now() - began))  # with very many topics it is seldom done
            if lead.store.closed:
                raise StoreLost("the leader's connection has closed")

    async def _refill_asked(self, lead: Lead, timeout: float) -> None:
        """Refills the topics asked for; returns after the timeout, or when nobody asks any more, or the flush has
        waited long enough.
        """
        now = self._shard.clock.monotonic
        until = now() + timeout + REFILL_S
        while now() < until:
            topic = await self._shard.cache.wait_for_ask(timeout)
            if topic is None:
                return
            if topic == FLUSH:
                while (await self._flusher.flush(lead, everything=True)).more:
                    pass
                return
            await self._prefetcher.refill(lead, topic)
            timeout = 0.0

    async def _measure(self, lead: Lead) -> None:
        shard = lead.shard
        depths = await shard.cache.depths(await shard.cache.topics())
        shard.metrics.ready_queue_depth.set(sum(d.ready for d in depths))
        gauges = await shard.cache.gauges()
        shard.metrics.delayed_depth.set(gauges["delayed"])
        shard.metrics.leased.set(gauges["leased"])
