"""The reconciler looks for rows that nobody would ever deliver: below the frontier, due long ago, and without a record
in Redis. There should be none; those found are counted, logged, and announced as arrivals.

Flush, refill, scan and arrivals go on meanwhile. A row that is there after Redis was asked was never acked (it is asked
for again, since a flush may have deleted it); one that was spilled meanwhile is at or above the frontier, which is read
last.
"""

import structlog

from mqueue.broker.daemons.lead import Lead
from mqueue.broker.format import record
from mqueue.message import BATCH_MAX

OVERDUE_US = 60_000_000

logger = structlog.get_logger(__name__)


class Reconciler:
    """Looks at one page a turn, topic after topic."""

    def __init__(self, overdue_us: int = OVERDUE_US) -> None:
        self._overdue_us = overdue_us
        self._topics: list[str] = []
        self._after = record.FIRST  # key of the last row looked at, of the topic at the end of the list

    async def reconcile(self, lead: Lead) -> int:
        """Returns how many strays were found."""
        shard = lead.shard
        self._topics = self._topics or await shard.cache.topics()
        if not self._topics:
            return 0
        topic = self._topics[-1]
        frontier = await shard.cache.frontier(topic)
        keys = []
        if frontier:
            before = shard.clock_us - self._overdue_us
            keys = await lead.store.pages.overdue(topic, self._after, frontier, before, BATCH_MAX)
        self._after = keys[-1] if len(keys) == BATCH_MAX else record.FIRST
        if not self._after:
            self._topics.pop()
        return await self._announce(lead, topic, keys)

    async def _announce(self, lead: Lead, topic: str, keys: list[bytes]) -> int:
        shard = lead.shard
        known = await shard.cache.known([_id(key) for key in keys]) if keys else set()
        strays = [key for key in keys if _id(key) not in known]
        if not strays:
            return 0
        there = await lead.store.pages.existing([_id(key) for key in strays])
        strays = [key for key in strays if _id(key) in there]
        frontier = await shard.cache.frontier(topic)
        ids = [_id(key) for key in strays if frontier and key < frontier]
        if ids:
            logger.error("rows that nobody would have delivered", shard=shard.number, topic=topic, count=len(ids), first=ids[:10])
            await lead.store.pages.put_arrivals(lead.epoch, lead.term, ids)
            shard.metrics.strays.inc(len(ids))
        return len(ids)


def _id(key: bytes) -> int:
    return record.key_parts(key)[3]
