"""The scheduler makes messages of what is due by the wall clock: one for each tick, whoever leads and whenever a leader
dies.

The time is the lesser of PostgreSQL's wall clock and this broker's, or the shard's where that is later: of the three
one that is ahead alone starts nothing early, and a broker's that is behind alone stops nothing.
A clock that goes back repeats nothing, since each schedule knows its next tick.
"""

from collections import Counter
from collections.abc import Sequence

import structlog

from mqueue import schedule
from mqueue.broker import failpoints
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.format import record
from mqueue.broker.store.leader.ticks import Ticked
from mqueue.broker.store.rows import Row
from mqueue.broker.wal.errors import WalFull
from mqueue.broker.wal.ids import IdSource
from mqueue.message import BATCH_MAX, BODY_MAX
from mqueue.schedule import Schedule

SCHEDULES_MAX = 100  # in one transaction
ROUNDS_MAX = 8  # transactions in one go, so that a flush gets its turn
LOG_EVERY_S = 60.0

logger = structlog.get_logger(__name__)


class Scheduler:
    """Enqueues what is due. `lease_s`, `max_retries`: of messages whose schedule names none."""

    def __init__(self, ids: IdSource, *, lease_s: float, max_retries: int) -> None:
        self._ids = ids
        self._lease_ms = int(lease_s * 1000)
        self._max_retries = max_retries
        self._unknown: Counter[int] = Counter()  # of each shard: schedules of its last round that this broker cannot read
        self._log_after = float("-inf")

    async def enqueue_due(self, lead: Lead, stamp_us: int, *, announce: bool) -> int:
        """Returns how many messages it made. `stamp_us`, `announce`: as `TickStore.enqueue`."""
        made = 0
        try:
            for _ in range(ROUNDS_MAX):
                if not await lead.store.ticks.is_due(lead.shard.wall_us()):
                    break
                if not (ticked := await self._round(lead, stamp_us, announce)):
                    break
                made += sum(len(t.rows) for t in ticked)
        except WalFull as full:  # no ids: the ticks wait
            logger.warning("scheduled tasks wait for room on the disk", shard=lead.shard.number, reason=str(full))
        lead.shard.metrics.scheduled.inc(made)
        return made

    async def _round(self, lead: Lead, stamp_us: int, announce: bool) -> list[Ticked]:
        """Makes one transaction."""
        limit = SCHEDULES_MAX + self._unknown[lead.shard.number]

        def decide(due: Sequence[Schedule], now_us: int) -> list[Ticked]:
            return self._decide(lead, due, now_us, stamp_us)

        ticked, refused = await lead.store.ticks.enqueue(
            lead.epoch, lead.term, lead.shard.wall_us, limit, decide, announce=announce, stamp_us=stamp_us
        )
        lead.shard.set_aside(refused)
        await failpoints.ahit("schedule.after_commit")
        return ticked

    def _decide(self, lead: Lead, due: Sequence[Schedule], now_us: int, stamp_us: int) -> list[Ticked]:
        """Decides on as much as fits one transaction, but not on schedules whose zone or cron only other brokers know:
        they wait for such a leader.
        """
        ticked: list[Ticked] = []
        unknown: list[str] = []
        count, size = BATCH_MAX, BODY_MAX
        for s in due:
            limit = min(count, max(1, size // (len(s.payload) + record.OVERHEAD)))
            try:
                ticks, next_us = schedule.due(s.spec, s.catch_up, s.next_at_us or 0, now_us, limit)
            except Exception as error:  # whatever the libraries of times raise: one schedule must not end the leader
                unknown.append(f"{s.namespace}/{s.name}: {error}")
                continue
            rows = [self._row(lead.shard.node, s, id, tick, stamp_us) for id, tick in zip(self._ids.take(len(ticks)), ticks, strict=True)]
            ticked.append(Ticked(s, rows, ticks[-1] if ticks else None, next_us))
            count, size = count - len(rows), size - sum(len(body) for _, body in rows)
            if count <= 0 or size <= 0:
                break
        self._unknown[lead.shard.number] = len(unknown)
        if unknown and lead.shard.clock.monotonic() >= self._log_after:
            self._log_after = lead.shard.clock.monotonic() + LOG_EVERY_S
            logger.error("schedules that this broker cannot read wait", shard=lead.shard.number, count=len(unknown), first=unknown[0])
        return ticked

    def _row(self, node: int, s: Schedule, id: int, tick_us: int, stamp_us: int) -> Row:
        body = record.body(stamp_us, s.payload, schedule.tagged(s.metadata, s.name, tick_us), None)
        data = record.new(
            priority=s.priority, due=stamp_us, id=id, expires=stamp_us + s.ttl_us if s.ttl_us else 0,
            max_retries=self._max_retries if s.max_retries is None else s.max_retries, lease_ms=s.lease_ms or self._lease_ms, node=node,
            sequence=0, size=len(body), topic=f"{s.namespace}/{s.topic}".encode(),
        )  # fmt: skip
        return data, body
