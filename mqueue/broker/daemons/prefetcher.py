"""The prefetcher reads from PostgreSQL into Redis: refills of topics that run low, the time scan, arrivals; eviction
goes the other way.
"""

from collections.abc import Sequence

from mqueue.broker import failpoints
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.format.record import LAST
from mqueue.message import BATCH_MAX, BODY_MAX

ROUNDS_MAX = 32  # pages in one go, so that a flush gets its turn
ARRIVALS_MAX = 100
ROW_MIN = 400  # bytes that the smallest message takes in Redis
RECENT_US = 10_000_000  # a topic that was fetched from since then is in use
SLICE = BATCH_MAX // 2


class Prefetcher:
    def __init__(self, horizon_us: int) -> None:
        self._horizon_us = horizon_us
        self._pressed = False  # a topic that is asked for found Redis full of others' messages

    async def refill(self, lead: Lead, topic: str) -> None:
        """Loads pages of this topic until it is full, or wholly in Redis."""
        shard = lead.shard
        for _ in range(ROUNDS_MAX):
            begun = await shard.cache.refill_begin(lead.epoch, lead.term, topic)
            if begun.frontier == LAST or begun.ready >= begun.cap:
                return
            self._pressed = self._pressed or begun.pressed
            if not begun.page:
                return
            limit = max(1, min(BATCH_MAX, begun.hard - begun.ready, begun.page // ROW_MIN))
            t_id = int.from_bytes(begun.t_id)
            rows, left_out = await lead.store.pages.refill(
                topic, begun.frontier, begun.clock, begun.t_due, t_id, limit, min(begun.page, BODY_MAX)
            )
            await failpoints.ahit("refill.before_script")
            loaded, brought, _, _ = await shard.cache.refill_end(lead.epoch, lead.term, topic, left_out, rows)
            shard.metrics.refills.inc()
            shard.metrics.refill_rows.inc(loaded)
            if begun.pressed and not loaded + brought:
                return

    async def scan(self, lead: Lead) -> None:
        """Moves the time frontier on to the horizon, as far as there is room."""
        shard = lead.shard
        for _ in range(ROUNDS_MAX):
            clock, due, id, room, size = await shard.cache.time_scan_begin(lead.epoch, lead.term)
            shard.metrics.clock_lag_seconds.set(max(0, clock - due) / 1e6)
            if due - clock > self._horizon_us // 2 or room <= 0 or not size:
                return
            until = clock + self._horizon_us
            rows, reached = await lead.store.pages.due(due, id, until, max(1, min(BATCH_MAX, room, size // ROW_MIN)), min(size, BODY_MAX))
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
            while (await cache.evict(lead.epoch, lead.term, topic, SLICE))[0]:
                pass

    async def relieve(self, lead: Lead) -> None:
        """Makes room where Redis holds more than it may, or so much that a topic which is asked for has none: takes out
        topics that nobody fetched from lately, then the greater halves of those with the most that are ready.
        """
        cache, pressed, self._pressed = lead.shard.cache, self._pressed, False
        crowd = await cache.crowded(lead.epoch, lead.term, BATCH_MAX if pressed else 0)
        if crowd.uncounted:
            await cache.recount(lead.epoch, lead.term)
        if not pressed and crowd.held <= crowd.soft:
            return
        if not pressed:
            crowd = await cache.crowded(lead.epoch, lead.term, BATCH_MAX)
        left = crowd.held - crowd.soft * 5 // 8 if pressed else crowd.held - crowd.soft * 7 // 8
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
