"""The prefetcher reads from PostgreSQL into Redis: refills of topics that run low, the time scan, arrivals; eviction
goes the other way. A Redis that is full takes none of it: it waits then, longer each time.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from mqueue.broker import failpoints
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.faults import CacheRefused, Refusal
from mqueue.broker.format.record import LAST
from mqueue.message import BATCH_MAX, BODY_MAX

ROUNDS_MAX = 32  # pages in one go, so that a flush gets its turn
ARRIVALS_MAX = 100
EMPTY_IDLE_US = 60_000_000  # after so long a topic is forgotten that holds nothing: it may never have been one
EVICT_ROUNDS_MAX = 40  # in one go
PAUSE_S, PAUSE_MAX_S = 0.1, 2.0  # while Redis is full

logger = structlog.get_logger(__name__)


class Prefetcher:
    def __init__(self, horizon_us: int) -> None:
        self._horizon_us = horizon_us
        self._arrived = 0  # the last arrival that was looked at
        self._pause_s = 0.0
        self._again_at = 0.0  # monotonic

    async def refill(self, lead: Lead, topics: Sequence[str]) -> None:
        """Loads the next page of each of these topics, in one statement. A topic of which there is more asks again."""
        async with lead.shared.pages:
            await self._bring(lead, partial(self._refill, lead, topics))

    async def scan(self, lead: Lead) -> None:
        """Moves the time frontier on to the horizon, as far as there is room."""
        await self._bring(lead, partial(self._scan, lead))

    async def arrivals(self, lead: Lead) -> None:
        """Places rows that came another way than through this epoch's scripts, then deletes their announcements. Those
        that must come again later are passed over.
        """
        await self._bring(lead, partial(self._arrivals, lead))

    async def _bring(self, lead: Lead, what: Callable[[], Awaitable[None]]) -> None:
        """Brings messages to Redis; nothing where that was full a moment ago. Whoever fetches asks again."""
        now = lead.shard.clock.monotonic
        if now() < self._again_at:
            return
        try:
            await what()
        except CacheRefused as refused:
            if refused.kind is not Refusal.FULL:
                raise
            self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s or PAUSE_S)
            self._again_at = now() + self._pause_s
            logger.warning("Redis is full: no messages are loaded", shard=lead.shard.number, pause_s=self._pause_s)
        else:
            self._pause_s = 0.0

    async def _refill(self, lead: Lead, topics: Sequence[str]) -> None:
        shard = lead.shard
        begun = await shard.cache.refill_begin(lead.epoch, lead.term, topics)
        room = {t: (frontier, begun.hard - ready) for t, (frontier, ready) in begun.topics.items() if frontier != LAST and ready < begun.cap}
        if not room:
            return
        pages = await lead.store.pages.refill(room, begun.clock, begun.t_due, begun.t_id, BATCH_MAX, BODY_MAX)
        await failpoints.ahit("refill.before_script")
        done = await shard.cache.refill_end(lead.epoch, lead.term, pages)
        shard.metrics.refills.inc(len(done))
        shard.metrics.refill_rows.inc(sum(d.loaded for d in done))

    async def _scan(self, lead: Lead) -> None:
        for _ in range(ROUNDS_MAX):
            async with lead.shared.pages:
                if await self._scan_page(lead):
                    return

    async def _scan_page(self, lead: Lead) -> bool:
        """Reads one page. Returns True when no more is to be done now."""
        shard = lead.shard
        clock, due, id, room = await shard.cache.time_scan_begin(lead.epoch, lead.term)
        shard.metrics.clock_lag_seconds.set(max(0, clock - due) / 1e6)
        if due - clock > self._horizon_us // 2 or room <= 0:
            return True
        until = clock + self._horizon_us
        rows, reached = await lead.store.pages.due(due, id, until, min(BATCH_MAX, room), BODY_MAX)
        await shard.cache.time_scan_end(lead.epoch, lead.term, *reached, rows)
        return reached == (until, 0)

    async def _arrivals(self, lead: Lead) -> None:
        shard = lead.shard
        for _ in range(ROUNDS_MAX):
            async with lead.shared.pages:
                ids, rows = await lead.store.pages.arrivals(self._arrived, ARRIVALS_MAX)
                later = await shard.cache.arrive(lead.epoch, lead.term, rows) if rows else set()
            if placed := [id for id in ids if id not in later]:
                await lead.store.pages.delete_arrivals(lead.epoch, lead.term, placed)
            if len(ids) < ARRIVALS_MAX:
                self._arrived = 0
                return
            self._arrived = ids[-1]

    async def evict(self, lead: Lead, idle_us: int) -> None:
        """Takes topics that nobody fetched from for long out of Redis, slice by slice. It goes on as long as many of
        those it looks at are to be forgotten.
        """
        cache = lead.shard.cache
        for _ in range(EVICT_ROUNDS_MAX):
            async with lead.shared.pages:  # a topic that is forgotten has no `low`, which a refill under way needs
                empty_idle_us = min(idle_us, EMPTY_IDLE_US)
                topics, forgotten = await cache.idle_topics(lead.epoch, lead.term, idle_us, empty_idle_us, BATCH_MAX)
            for topic in topics:
                while await cache.evict(lead.epoch, lead.term, topic, BATCH_MAX // 2):
                    pass
            if forgotten < BATCH_MAX // 10:
                return
