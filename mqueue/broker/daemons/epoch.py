"""Epochs closes an epoch and opens the next: hot where Redis answers, cold where no broker can reach it.

Cold is a mode of the shard, never of one broker: it is opened only when every broker that may still serve the last
epoch has confirmed that it does not: those that live have replayed, those that fell silent have been silent for
ALONE_S, in which they stop by themselves. Where another broker reaches Redis, this one gives up its leadership.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import structlog

from mqueue.broker import failpoints
from mqueue.broker.cache.calls import Limits
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.daemons.favourite import ALIVE_S
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.faults import CacheLost, Deposed, GivesWay
from mqueue.broker.format import record
from mqueue.broker.shard import ALONE_S, COLD, HOT, Shard
from mqueue.broker.store.leader.store import Opening
from mqueue.broker.store.seats import BrokerRow, ShardRow

BARRIER_S = 6.0  # a closing epoch waits so long for brokers that may live
REPLAY_MAX_S = 60.0  # it waits so long for replays that go on: those of brokers that are heard, and the leader's own
REACH_S = 1.0  # one try
COLD_AFTER_S = 2.0  # Redis may be silent for so long
CLOCKS_APART_S = 5.0  # a silent broker stops by its own clock
LEASES_PAGE = 100
REQUEST_KEYS_MAX = 100_000  # as apply.lua

logger = structlog.get_logger(__name__)


class Reached(NamedTuple):
    """A Redis that answers: the epoch it knows, and its run id."""

    epoch: int | None
    run_id: str


class Epochs:
    """Closes and opens epochs. `admin`: a cache that takes whatever Redis answers."""

    def __init__(self, admin: ReadyCache, limits: Limits) -> None:
        self._admin = admin
        self._limits = limits
        self._heard: dict[int, tuple[float, float]] = {}  # node → its last heartbeat, and when that was by our monotonic clock

    async def reach(self, lead: Lead, patience: float) -> Reached | None:
        """Raises the term in Redis, and returns what Redis knows; None when it does not answer within `patience`
        seconds.
        """
        clock = lead.shard.clock
        deadline = clock.monotonic() + patience
        while True:
            try:
                async with asyncio.timeout(REACH_S):
                    return Reached(await self._admin.lead(lead.term, lead.shared.token, self._limits), await self._admin.run_id_of_server())
            except Deposed as later:  # PostgreSQL was set back: go past what Redis remembers
                lead.term = await lead.store.raise_term(int(str(later).split()[1]), lead.shard.node)
            except (CacheLost, TimeoutError):
                if clock.monotonic() >= deadline:
                    return None
                await asyncio.sleep(0.1)

    async def set_back(self, lead: Lead, mode: str) -> bool:
        """Has PostgreSQL forgotten what it had committed, though its timeline is the same? It lacks a flush that Redis
        knows of, or a position that its broker has seen. The brokers' logs have what is missing.
        """
        shard = lead.shard
        known = await self._admin.trimmed() if mode == HOT else 0  # asked first: a flush may come between
        if known > (await shard.store.row()).dirty_number:
            logger.error("PostgreSQL has forgotten flushes", shard=shard.number, epoch=lead.epoch, last=known)
            return True
        nodes = [b.node for b in await shard.store.brokers() if b.was_set_back and b.silent_s < ALIVE_S]
        if nodes:
            logger.error("PostgreSQL has forgotten what is in these brokers' logs", shard=shard.number, nodes=nodes)
        return bool(nodes)

    @staticmethod
    def goes_on(row: ShardRow, reached: Reached | None) -> bool:
        """May the shard's epoch go on as it is?"""
        if row.timeline != row.timeline_now:
            return False
        if reached is None:
            return row.mode == COLD
        return row.mode == HOT and (reached.epoch, reached.run_id) == (row.epoch, row.run_id)

    async def give_way(self, lead: Lead) -> None:
        """Raises GivesWay where another broker reaches Redis, and this one does not."""
        if any(b.reaches and b.silent_s < ALIVE_S for b in await self._others(lead)):
            raise GivesWay("another broker reaches Redis: it may lead")

    async def _others(self, lead: Lead) -> list[BrokerRow]:
        return [b for b in await self.brokers(lead) if b.node != lead.shard.node]

    async def brokers(self, lead: Lead) -> list[BrokerRow]:
        """Returns all brokers. From the first look on their silence is counted by this broker's monotonic clock:
        PostgreSQL's may jump.
        """
        rows, now = await lead.shard.store.brokers(), lead.shard.clock.monotonic()
        for b in rows:
            if b.node not in self._heard or self._heard[b.node][0] != b.seen_at:
                self._heard[b.node] = (b.seen_at, now - max(0.0, b.silent_s))
        return [replace(b, silent_s=now - self._heard[b.node][1]) for b in rows]

    async def reopen(self, lead: Lead, floor: int) -> str:
        """Closes the epoch, waits for the brokers' replay, opens the next one. Returns its mode."""
        shard = lead.shard
        lead.epoch = await lead.store.raise_epoch(lead.term, floor)
        logger.info("closing the epoch", shard=shard.number, next=lead.epoch)
        shard.lost()
        began = shard.clock.monotonic()
        while await self._waits(lead, shard.clock.monotonic() - began):
            await asyncio.sleep(0.02)
        await failpoints.ahit("recovery.before_open")
        while True:
            if (reached := await self.reach(lead, 0.0)) is not None:
                await self._open_hot(lead, reached.run_id)
                return HOT
            await self.give_way(lead)
            if not (waiting := await self._behind(lead, ALONE_S + CLOCKS_APART_S)):
                row = await shard.store.row()
                clock = clock_of_next(shard, row)[1 if row.clock_us else 0]
                await lead.store.open_cold(lead.epoch, lead.term, row.timeline_now, clock)
                logger.warning("opened an epoch without Redis: PostgreSQL serves", shard=shard.number, epoch=lead.epoch)
                return COLD
            logger.info("brokers may still serve the last epoch", shard=shard.number, nodes=waiting)
            await asyncio.sleep(0.2)

    async def _waits(self, lead: Lead, waited_s: float) -> bool:
        """Must the next epoch wait for a broker's replay? What a broker acked comes back where its replay is late, so
        it waits even for those that have been silent for a while: where PostgreSQL was away all were, and went on
        acking. For those that are heard, and for this broker itself, it waits longer, however much their logs have:
        they are alive for certain.
        """
        if waited_s < BARRIER_S and await self._behind(lead, ALONE_S):
            return True
        if waited_s >= REPLAY_MAX_S:
            return False
        return lead.shard.node in await self._behind(lead, float("inf")) or bool(await self._behind(lead, ALIVE_S))

    async def _behind(self, lead: Lead, silent_s: float) -> list[int]:
        """Returns the nodes that have not confirmed this epoch, but for those that have been silent for so long."""
        return [b.node for b in await self.brokers(lead) if b.replayed < lead.epoch and b.silent_s < silent_s]

    async def _open_hot(self, lead: Lead, run_id: str) -> None:
        """Opens the epoch in one transaction: a replay that comes meanwhile waits, and finds the epoch open."""
        shard = lead.shard
        await self._admin.clear(lead.term)
        async with lead.store.opening_hot(lead.epoch, lead.term, run_id, partial(clock_of_next, shard)) as opening:
            await self._load(lead, opening)
            await self._admin.open_epoch(lead.epoch, lead.term, opening.clock, self._limits, await opening.positions())
        shard.cache.run_id = run_id
        logger.info("opened an epoch", shard=shard.number, epoch=lead.epoch)

    async def _load(self, lead: Lead, opening: Opening) -> None:
        """Loads what PostgreSQL knows and Redis must know from the beginning: leases that still run, and keys of whole
        requests.
        """
        after = loaded = 0
        while rows := await opening.live_leases(after, LEASES_PAGE):
            await self._admin.load_leases(lead.term, [(data, body) for _, data, body in rows])
            after, loaded = rows[-1][0], loaded + len(rows)
        keys = await opening.request_keys(REQUEST_KEYS_MAX)
        left_until = record.IDEMPOTENCY.unpack_from(keys[-1][1])[4] if len(keys) == REQUEST_KEYS_MAX else 0  # the others end before
        await self._admin.load_keys(lead.term, keys, left_until)
        lead.mirrors = True  # PostgreSQL may know leases that have ended, too
        if loaded or keys:
            logger.info("loaded", shard=lead.shard.number, leases=loaded, keys=len(keys))


def clock_of_next(shard: Shard, row: ShardRow) -> tuple[int, int]:
    """Returns where the clock of the next epoch begins, at least and at most: where that of the last one is by now, as
    far as it is known here, or further where two wall clocks agree that it is later. The first tick would go on as far,
    and end what was enqueued before it too early. That of a shard's first epoch lies between the two wall clocks, so
    that no single one that is wrong decides.
    """
    one, other = sorted((shard.clock.wall_us(), row.wall_us))
    if row.clock_us:
        known = max(row.clock_us, shard.now_us())
        return known, max(known, one)
    return one, other
