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
ROW_MIN = 400  # bytes that the smallest message takes in Redis
RECENT_US = 10_000_000  # a topic that was fetched from since then is in use
SLICE = BATCH_MAX // 2

logger = structlog.get_logger(__name__)


class Prefetcher:
    def __init__(self, horizon_us: int) -> None:
        self._horizon_us = horizon_us
        self._arrived = 0  # the last arrival that was looked at
        self._pause_s = 0.0
        self._again_at = 0.0  # monotonic
        self._pressed = False  # a topic that is asked for found Redis full of others' messages

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
        most = 1 if begun.tight else begun.cap
        room = {t: (frontier, begun.hard - ready) for t, (frontier, ready) in begun.topics.items() if frontier != LAST and ready < most}
        if not room:
            return
        self._pressed = self._pressed or begun.tight
        limit = max(1, min(BATCH_MAX, begun.page // ROW_MIN))
        pages = await lead.store.pages.refill(room, begun.clock, begun.t_due, begun.t_id, limit, min(begun.page, BODY_MAX))
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
        clock, due, id, room, size = await shard.cache.time_scan_begin(lead.epoch, lead.term)
        shard.metrics.clock_lag_seconds.set(max(0, clock - due) / 1e6)
        if due - clock > self._horizon_us // 2 or room <= 0 or not size:
            return True
        until = clock + self._horizon_us
        limit = max(1, min(BATCH_MAX, room, size // ROW_MIN))
        rows, reached = await lead.store.pages.due(due, id, until, limit, min(size, BODY_MAX))
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
                while (await cache.evict(lead.epoch, lead.term, topic, SLICE))[0]:
                    pass
            if forgotten < BATCH_MAX // 10:
                return

    async def relieve(self, lead: Lead) -> None:
        """Makes room where Redis holds more than it may, or so much that a topic which is asked for has none: takes out
        topics that nobody fetched from lately, then the greater halves of those with the most that are ready.
        """
        cache, pressed, self._pressed = lead.shard.cache, self._pressed, False
        crowd = await cache.crowded(lead.epoch, lead.term, BATCH_MAX if pressed else 0)
        lead.shard.metrics.redis_bytes.set(crowd.used)
        if not pressed and crowd.used <= crowd.soft:
            return
        await lead.store.pulse(lead.epoch, lead.term)  # what goes must be able to come back
        if not pressed:
            crowd = await cache.crowded(lead.epoch, lead.term, BATCH_MAX)
        left = crowd.used - crowd.soft * (5 if pressed else 7) // 8
        rounds = ROUNDS_MAX
        for topic, keep in to_evict(crowd.topics, lead.shard.now_us()):
            ready = keep + 1
            while left > 0 and rounds > 0 and ready > keep:
                ready, taken = await cache.evict(lead.epoch, lead.term, topic, SLICE, left)
                left -= taken
                rounds -= 1


def to_evict(topics: Sequence[tuple[str, int, int]], now: int) -> list[tuple[str, int]]:
    """Returns whose ready messages go first, and how many stay, of topics with the time they were last fetched from and
    how many are ready. It is pure.
    """
    idle = sorted((t for t in topics if now - t[1] > RECENT_US), key=lambda t: t[1])
    in_use = sorted((t for t in topics if now - t[1] <= RECENT_US), key=lambda t: -t[2])
    return [(name, 0) for name, _, _ in idle] + [(name, ready // 2) for name, _, ready in in_use]
