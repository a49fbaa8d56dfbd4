"""The prefetcher reads from PostgreSQL into Redis: refills of topics that run low, the time scan, arrivals; eviction
goes the other way.
"""

from mqueue.broker import failpoints
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.format.record import LAST
from mqueue.message import BATCH_MAX, BODY_MAX

ROUNDS_MAX = 32  # pages in one go, so that a flush gets its turn
ARRIVALS_MAX = 100


class Prefetcher:
    def __init__(self, horizon_us: int) -> None:
        self._horizon_us = horizon_us

    async def refill(self, lead: Lead, topic: str) -> None:
        """Loads pages of this topic until it is full, or wholly in Redis."""
        shard = lead.shard
        for _ in range(ROUNDS_MAX):
            begun = await shard.cache.refill_begin(lead.epoch, lead.term, topic)
            if begun.frontier == LAST or begun.ready >= begun.cap:
                return
            limit = max(1, min(BATCH_MAX, begun.hard - begun.ready))
            t_id = int.from_bytes(begun.t_id)
            rows, left_out = await lead.store.pages.refill(topic, begun.frontier, begun.clock, begun.t_due, t_id, limit, BODY_MAX)
            await failpoints.ahit("refill.before_script")
            loaded, _, _, _ = await shard.cache.refill_end(lead.epoch, lead.term, topic, left_out, rows)
            shard.metrics.refills.inc()
            shard.metrics.refill_rows.inc(loaded)

    async def scan(self, lead: Lead) -> None:
        """Moves the time frontier on to the horizon, as far as there is room."""
        shard = lead.shard
        for _ in range(ROUNDS_MAX):
            clock, due, id, room = await shard.cache.time_scan_begin(lead.epoch, lead.term)
            shard.metrics.clock_lag_seconds.set(max(0, clock - due) / 1e6)
            if due - clock > self._horizon_us // 2 or room <= 0:
                return
            until = clock + self._horizon_us
            rows, reached = await lead.store.pages.due(due, id, until, min(BATCH_MAX, room), BODY_MAX)
            await shard.cache.time_scan_end(lead.epoch, lead.term, *reached, rows)
            if reached == (until, 0):
                return

    async def arrivals(self, lead: Lead) -> None:
        """Places rows that came another way than through this epoch's scripts, then deletes their announcements."""
        shard = lead.shard
        for _ in range(ROUNDS_MAX):
            ids, rows = await lead.store.pages.arrivals(ARRIVALS_MAX)
            if not ids:
                return
            later = await shard.cache.arrive(lead.epoch, lead.term, rows) if rows else set()
            await lead.store.pages.delete_arrivals(lead.epoch, lead.term, [id for id in ids if id not in later])
            if later:
                return

    async def evict(self, lead: Lead, idle_us: int) -> None:
        """Takes topics that nobody fetched from for long out of Redis, slice by slice."""
        cache = lead.shard.cache
        for topic in await cache.idle_topics(lead.epoch, lead.term, idle_us, BATCH_MAX):
            while await cache.evict(lead.epoch, lead.term, topic, BATCH_MAX // 2):
                pass
