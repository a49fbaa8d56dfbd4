"""The leader of a shard is elected, closes and opens epochs, and sees to it that the daemons run (`work.py`).

A session advisory lock in the shard's database elects the leader; a *term* in the shard's row fences it. A new leader
raises the term in PostgreSQL, then in Redis, before it reads anything. Every transaction of its daemons begins by
locking the shard row on epoch and term; every script of theirs carries both. So a leader that was paused and wakes
changes nothing. If Redis does not know the epoch (it was restarted, flushed, replaced), the leader closes it: see
`recovery/membership.py` for the brokers' part.

A term ends where its fence is lost: another epoch or term stands, or the session that holds the lock has ended. What
PostgreSQL refuses or delays in one lane of the work ends that lane's turn only.
"""

import asyncio
import random
from contextlib import suppress

import structlog

from mqueue.broker import tasks
from mqueue.broker.cache.calls import Limits
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.daemons.cold_shard import ColdShard
from mqueue.broker.daemons.epoch import COLD_AFTER_S, Epochs, Reached
from mqueue.broker.daemons.favourite import Favour, favourite
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.daemons.work import Work
from mqueue.broker.faults import CacheLost, EpochEnded, Fault, Forgotten, GivesWay, StoreLost
from mqueue.broker.shard import COLD, HOT, Shard
from mqueue.broker.store.leader.store import LeaderStore

ELECTION_S = 1.0  # between two tries
FAVOURED_S = 0.25  # of the broker whose turn it is
HANGS_S = 5.0  # without a heartbeat a leader's lock is taken from it
PULSE_S = 1.0  # between two looks at the session that holds the lock
REMEMBERS_EVERY_S = 1.0
FORGOTTEN_EPOCHS = 1_000_000  # the next epoch is one of so many: PostgreSQL may have forgotten one that a broker has confirmed
GIVES_WAY_S = 3.0  # to a broker that should lead

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
        self._work = Work(scheduler, flush_age_us=flush_age_us, horizon_us=horizon_us, idle_us=idle_us)
        self._gave_way_at: float | None = None
        self.leads = False

    async def run(self) -> None:
        while True:
            store: LeaderStore | None = None
            try:
                store = await LeaderStore.connect(self._shard.store)
                while not await self._elected(store):
                    await asyncio.sleep((FAVOURED_S if await self._is_favoured() else ELECTION_S) * (0.75 + random.random() / 2))
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
        """Tries once to be elected. A broker that gave way leaves it to others for a while; a leader that hangs loses
        its lock.
        """
        shard = self._shard
        if self._gave_way_at is not None and shard.clock.monotonic() - self._gave_way_at < GIVES_WAY_S:
            return False
        if await store.try_lock():
            return True
        if await store.unseat(shard.node, HANGS_S):
            logger.warning("the leader hangs: its lock is free", shard=shard.number)
        return False

    async def _is_favoured(self) -> bool:
        """Is it this broker's turn? Then it is handed the shard in a moment, and nobody should lead meanwhile."""
        with suppress(StoreLost):
            return favourite(await self._shard.store.brokers(), self._shard.number) == self._shard.node
        return False

    async def flush_all(self, timeout: float) -> None:
        """Flushes until nothing waits, for a clean stop, if this broker leads."""
        if self.leads and self._shard.mode == HOT:
            await self._work.flush_all(self._shard, timeout)

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
        forgot = False
        while True:
            row = await shard.store.row()
            goes_on = self._epochs.goes_on(row, reached)
            forgot = forgot or await self._epochs.set_back(lead, row.mode if goes_on else COLD)
            if goes_on and not forgot:
                lead.epoch, mode = row.epoch, row.mode
                shard.cache.run_id = row.run_id
            else:
                least = row.epoch + random.randrange(FORGOTTEN_EPOCHS) if forgot else 0
                mode = await self._epochs.reopen(lead, max(reached.epoch or 0 if reached else 0, least))
                forgot = False
            shard.suspect.set()
            try:
                if mode == COLD:
                    await self._cold.keep(lead)
                else:
                    await self._serve(lead)
            except EpochEnded as ended:
                logger.warning("the epoch has ended", shard=shard.number, epoch=lead.epoch, reason=str(ended))
                shard.lost()
                reached, forgot = Reached(None, ""), isinstance(ended, Forgotten)
                continue
            except CacheLost as lost:
                logger.warning("Redis does not answer", shard=shard.number, reason=str(lost))
                await asyncio.sleep(0.1)
                lead.term = await lead.store.raise_term(0, shard.node)  # a call that was given up may still be on its way there
            reached = await self._epochs.reach(lead, COLD_AFTER_S)
            if reached is None:
                await self._epochs.give_way(lead)

    async def _serve(self, lead: Lead) -> None:
        works = (self._keep(lead), self._remembers(lead), *self._work.loops(lead))
        loops = [asyncio.create_task(work, name=f"shard {lead.shard.number}") for work in works]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await tasks.end(loops)
            lead.shard.metrics.clock_ahead_seconds.set(0.0)  # nobody measures it any more

    async def _remembers(self, lead: Lead) -> None:
        """Has PostgreSQL what it said to have? A server that was started again may lack it, and its brokers tell so."""
        while True:
            await asyncio.sleep(REMEMBERS_EVERY_S)
            with suppress(StoreLost):
                if await self._epochs.set_back(lead, HOT):
                    raise Forgotten

    async def _keep(self, lead: Lead) -> None:
        """Looks whether the session lives that holds the lock, and the fence stands: an answer that comes too late is
        no loss of either. Hands over where another broker should lead.
        """
        now = lead.shard.clock.monotonic
        favour = Favour(lead.shard.node, now())
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                await lead.store.pulse(lead.epoch, lead.term)
                favoured = favourite(await self._epochs.brokers(lead), lead.shard.number)
            except StoreLost:
                if lead.store.closed:
                    raise
                continue
            if favour.is_lost(favoured, now()):
                raise GivesWay(f"handing over to node {favoured}, whose turn it is")
