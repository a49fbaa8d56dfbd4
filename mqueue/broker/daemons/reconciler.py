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
PRIORITIES_MAX = 20  # that a step looks at: some few reads of the index each

logger = structlog.get_logger(__name__)


class Reconciler:
    """Looks at one page a step, topic after topic. A step reads BATCH_MAX rows at most, of PRIORITIES_MAX priorities of
    one topic, whatever is in the table; the next goes on after it.
    """

    def __init__(self, overdue_us: int = OVERDUE_US) -> None:
        self._overdue_us = overdue_us
        self._topics: list[str] = []
        self._after = record.FIRST  # key up to which it has looked, of the topic at the end of the list

    async def reconcile(self, lead: Lead) -> int:
        """Returns how many strays were found."""
        shard = lead.shard
        self._topics = self._topics or await shard.cache.topics()
        if not self._topics:
            return 0
        topic = self._topics[-1]
        frontier = await shard.cache.frontier(topic)
        keys = await self._page(lead, topic, frontier) if frontier else []
        if not frontier or not self._after:
            self._after = record.FIRST
            self._topics.pop()
        return await self._announce(lead, topic, keys)

    async def _page(self, lead: Lead, topic: str, frontier: bytes) -> list[bytes]:
        """Returns the next keys of what was due long ago, and moves on behind them: to FIRST at the topic's end."""
        before = lead.shard.clock_us - self._overdue_us
        found: list[bytes] = []
        for _ in range(PRIORITIES_MAX):
            keys, self._after = await lead.store.pages.overdue(topic, self._after, frontier, before, BATCH_MAX - len(found))
            found += keys
            if not self._after or len(found) == BATCH_MAX:
                break
        return found

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
