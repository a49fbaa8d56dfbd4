"""Membership is this broker's part in the life of a shard: it looks at the shard row, replays its log when an epoch
closes, and joins the next one.

Closing an epoch is the one recovery path (docs/design.md, Epochs): the leader raises the epoch, mode *recovering*;
every live broker replays what lies beyond its position into PostgreSQL and confirms; the leader opens Redis anew, mode
*hot*; every broker joins. A start is the same: a broker joins, and what it has from ended epochs goes into PostgreSQL
as arrivals, what it has of this one into Redis.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import structlog

from mqueue.broker import failpoints, tasks
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.commit.batch import for_script
from mqueue.broker.faults import MISCONFIGURED, CacheLost, Fault, Refusal
from mqueue.broker.format import entries, log_record, record, tail
from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.shard import ALONE_S, APART, COLD, HOT, Shard
from mqueue.broker.store.replay import replay
from mqueue.broker.store.seats import CLOCK_OFF_S, ShardRow

LOOK_S = 0.5
URGENT_S = 0.05
REACH_S = 1.0  # one try
APART_AFTER_S = 2.0  # so long Redis may be silent
APART_TRIES = 2  # the first after a pause may have run out of time in it
TELL_AGAIN_S, TELL_MAX_S = 60.0, 3600.0  # that Redis cannot be used still
TIDY_S = 5.0  # between looks for segments that may go
REPLAY_MAX = 8 * 1024 * 1024  # bytes of log folded into one transaction: its statements have a deadline

logger = structlog.get_logger(__name__)


class Membership:
    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._replayed = self._term = 0  # the epoch that it has confirmed, and in which term: PostgreSQL may forget, and give a number again
        self._tidied_at = 0.0
        self._reached_at = shard.clock.monotonic()
        self._missed = 0  # tries since then
        self._told_at, self._tell_after = -math.inf, TELL_AGAIN_S / 2  # how Redis is
        self._clock_agrees = True  # the wall clock, with that of PostgreSQL

    async def run(self) -> None:
        watching = asyncio.create_task(self._watch_redis())
        try:
            await self._run()
        finally:
            await tasks.end([watching])

    async def _run(self) -> None:
        shard = self._shard
        while True:
            try:
                await self._look()
            except Fault as fault:
                logger.warning("cannot look at the shard", shard=shard.number, reason=str(fault))
                if shard.clock.monotonic() - shard.looked_at > ALONE_S:
                    shard.serving.clear()
                await asyncio.sleep(0.2 + random.random() / 5)
            pause = LOOK_S if shard.serving.is_set() else URGENT_S
            try:
                async with asyncio.timeout(pause):
                    await shard.suspect.wait()
                await asyncio.sleep(URGENT_S)
            except TimeoutError:
                pass

    async def _watch_redis(self) -> None:
        """Does Redis take what this broker writes? One that answers and takes nothing is not reached. Others look at
        this before they give a shard up.
        """
        shard = self._shard
        while True:
            was = shard.refusal
            shard.refusal, reason = await self._reached()
            self._tell_redis(was, reason)
            if shard.reaches:
                self._reached_at, self._missed = shard.clock.monotonic(), 0
            else:
                self._missed += 1
            await asyncio.sleep(LOOK_S)

    def _tell_redis(self, was: Refusal | None, reason: str) -> None:
        """Logs what has changed; what stays wrong again after a minute, and then ever more seldom."""
        shard, now = self._shard, self._shard.clock.monotonic()
        shard.metrics.redis_misconfigured.set(shard.refusal in MISCONFIGURED)
        if shard.refusal is not was:
            self._told_at, self._tell_after = now, TELL_AGAIN_S
        elif shard.refusal is None or now - self._told_at < self._tell_after:
            return
        else:
            self._told_at, self._tell_after = now, min(2 * self._tell_after, TELL_MAX_S)
        more = {"reason": reason} if reason else {}
        logger.warning("Redis", shard=shard.number, state=shard.refusal.value if shard.refusal else "ok", **more)

    async def _reached(self) -> tuple[Refusal | None, str]:
        """Returns what Redis refuses with (None: nothing), and its words for it."""
        shard = self._shard
        try:
            async with asyncio.timeout(REACH_S):
                return Refusal.FULL if await shard.cache.reach(shard.epoch, shard.node) else None, ""
        except CacheLost as lost:
            return lost.kind, str(lost)
        except (Fault, TimeoutError) as error:
            return Refusal.SILENT, str(error) or f"no answer in {REACH_S:g} s"

    async def _look(self) -> None:
        shard = self._shard
        suspected = shard.suspect.is_set()
        shard.suspect.clear()
        position = await self._beat(shard.position)
        began = shard.clock.monotonic()
        row = await shard.store.row()
        shard.looked_at = began
        joined = row.epoch == shard.epoch
        recovers = row.mode == "recovering"
        if position < shard.position and joined and not recovers:
            # the leader sees it by the heartbeat, and closes the epoch; nothing of the log may go before its replay
            logger.error("PostgreSQL has forgotten commits", shard=shard.number, position=position, known=shard.position)
            return
        shard.position = position
        # a process that was stopped has not heard of Redis for as long; it must have tried
        is_cut = self._missed >= APART_TRIES and shard.clock.monotonic() - self._reached_at > APART_AFTER_S
        if joined and not recovers:
            self._term = row.term
        if recovers:
            if self._replayed < row.epoch or self._term != row.term or joined:  # an epoch that was open and closes again: it was forgotten
                await self._confirm(row)
        elif row.mode == COLD:
            if not joined or shard.mode != COLD:
                await self._join_cold(row, position)
            shard.saw_cold_clock(row.clock_us)
        elif is_cut:
            if not joined or shard.mode != APART:
                await self._go_apart(row)
        elif not joined or shard.mode != HOT:
            await self._join(row, position)
        elif suspected or not shard.serving.is_set():
            await shard.cache.join(row.epoch, shard.node, None)  # raises when this epoch is not what Redis knows
            shard.serving.set()
        if shard.clock.monotonic() - self._tidied_at > TIDY_S:
            self._tidied_at = shard.clock.monotonic()
            await asyncio.to_thread(shard.log.remove_flushed, position, self._tidied_at)
            shard.metrics.wal_bytes.set(shard.log.bytes)
            shard.wal_full = shard.wal_full and not await asyncio.to_thread(shard.log.has_room)

    async def _confirm(self, row: ShardRow) -> None:
        """Replays what PostgreSQL does not have, and says so: an epoch has closed."""
        shard = self._shard
        shard.serving.clear()
        shard.epoch = 0
        async with shard.in_flight:
            shard.position = position = await self._beat()
            async with self._beating():
                await failpoints.ahit("recovery.before_replay")
                await self._replay(shard.log.records(position), row, position, late=False)
                await failpoints.ahit("recovery.after_replay")
            self._replayed, self._term = row.epoch, row.term
            shard.position = await self._beat()

    async def _beat(self, known: int = 0) -> int:
        """Tells PostgreSQL that this broker lives, and what it has replayed. `known`: its position as it was seen last;
        0 where PostgreSQL may have gone back. Returns its position.
        """
        shard = self._shard
        now = shard.clock.wall_us()
        position, clock_off_us = await shard.store.heartbeat(shard.node, self._replayed, self._term, shard.start, now, shard.reaches, known)
        self._saw_clock_off(clock_off_us / 1e6)
        return position

    def _saw_clock_off(self, off_s: float) -> None:
        """Tells once that the wall clock is off, and once that it is not any more."""
        shard = self._shard
        shard.metrics.clock_off_seconds.set(off_s)
        if (abs(off_s) <= CLOCK_OFF_S) == self._clock_agrees:
            return
        self._clock_agrees = not self._clock_agrees
        if self._clock_agrees:
            logger.info("the wall clock agrees with that of PostgreSQL again", shard=shard.number, ahead_s=round(off_s, 1))
        else:
            logger.error("the wall clock is not that of PostgreSQL: set both", shard=shard.number, ahead_s=round(off_s, 1))

    @asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Goes on being heard while the block takes its time: the leader waits for a replay that goes on."""

        async def beat() -> None:
            while True:
                with suppress(Fault):
                    await self._beat()
                await asyncio.sleep(LOOK_S)

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            await tasks.end([beating])

    async def _replay(self, log: Iterable[LogRecord], row: ShardRow, position: int, *, late: bool) -> int:
        """Replays records. `position`: what they follow. Returns the last sequence replayed, 0 for none."""
        shard = self._shard
        last = 0
        for part in parts(log):
            folded = await asyncio.to_thread(tail.fold, part)
            clock = max(row.clock_us, shard.now_us())
            shard.set_aside(await replay(shard.store, row.epoch, shard.node, folded, clock=clock, late=late, after=max(position, last)))
            last = folded.last
            logger.info(
                "replayed into PostgreSQL",
                shard=shard.number,
                messages=len(folded.messages),
                outcomes=len(folded.others),
                late=late,
            )
        await shard.store.bury_orphans(shard.node, shard.start)
        return last

    async def _join(self, row: ShardRow, position: int) -> None:
        """Becomes part of the present epoch: the same for a start and for one that was away."""
        shard = self._shard
        shard.serving.clear()
        async with shard.in_flight:
            shard.cache.run_id = row.run_id
            await shard.cache.forget_connections()
            position = max(position, await self._replay_late(row, position))
            asked_at = shard.clock.monotonic()
            applied, due_clock, clock = await shard.cache.join(row.epoch, shard.node, None)
            start = max(applied or 0, position)
            await shard.cache.join(row.epoch, shard.node, start, applied)
            last, brought = await catch_up(shard.cache, shard.node, shard.log.records, row.epoch, start)
            shard.previous = shard.sequence
            shard.buffered = last if brought else 0
            self._replayed, self._term = row.epoch, row.term  # what it had of ended epochs has come late
            await shard.cache.join(row.epoch, shard.node, shard.sequence, last)
            shard.epoch, shard.mode = row.epoch, HOT
            shard.clocks.begin_epoch()
            shard.clocks.saw(due_clock, clock, asked_at)
            shard.metrics.epoch.set(row.epoch)
            shard.serving.set()
        logger.info("joined", shard=shard.number, epoch=row.epoch)

    async def _replay_late(self, row: ShardRow, position: int) -> int:
        """Replays what it has of epochs that ended without it. Returns the last sequence replayed, 0 for none."""
        late = (entry for entry in self._shard.log.records(position) if entry.epoch < row.epoch)
        return await self._replay(late, row, position, late=True)

    async def _join_cold(self, row: ShardRow, position: int) -> None:
        shard = self._shard
        shard.serving.clear()
        async with shard.in_flight:
            shard.cache.run_id = ""
            await self._replay_late(row, position)
            shard.epoch, shard.mode, shard.buffer = row.epoch, COLD, 0
            shard.buffered, self._replayed, self._term = 0, row.epoch, row.term
            shard.clocks.begin_epoch()
            shard.clocks.saw(0, row.clock_us, shard.clock.monotonic())
            shard.metrics.epoch.set(row.epoch)
            shard.serving.set()
        logger.warning("joined without Redis: PostgreSQL serves", shard=shard.number, epoch=row.epoch)

    async def _go_apart(self, row: ShardRow) -> None:
        """Goes apart: the shard is hot, and Redis cannot be reached from here. What is under way ends with an unknown
        outcome.
        """
        shard = self._shard
        shard.serving.clear()
        async with shard.in_flight:
            shard.epoch, shard.mode = row.epoch, APART
            shard.saw_cold_clock(row.clock_us)
            shard.serving.set()
        logger.warning("Redis cannot be reached from here: only enqueues are taken", shard=shard.number, epoch=row.epoch)


async def catch_up(cache: ReadyCache, node: int, records: Callable[[int], Iterable[LogRecord]], epoch: int, start: int) -> tuple[int, int]:
    """Applies what a log has of this epoch and Redis has not: enqueues only, since a settle reaches Redis before the
    log. `records`: the log after a sequence. Returns the last sequence applied, and how many messages.
    """
    voids = (entry for entry in records(start) if entry.kind == log_record.VOID)
    void = {id for entry in voids for id in entries.unpack_void(entry.payload)}
    previous, brought = start, 0
    for entry in records(start):
        if entry.kind != log_record.ENQUEUE:
            continue
        messages = [m for m in entries.unpack_enqueued(entry.payload) if record.unpack(m.record).id not in void]
        enqueues = [e for group, request in enumerate(entries.by_request(messages)) for e in for_script(group, request)]
        await cache.apply(epoch, node, previous, entry.sequence, enqueues, [])
        previous, brought = entry.sequence, brought + len(enqueues)
        logger.info("brought to Redis from the log", shard=cache.shard, messages=len(enqueues))
    return previous, brought


def parts(log: Iterable[LogRecord]) -> Iterable[list[LogRecord]]:
    """Yields the log in pieces of bounded size that end with a batch: records of one sequence stay together."""
    part: list[LogRecord] = []
    size = 0
    for entry in log:
        if part and size > REPLAY_MAX and entry.sequence != part[-1].sequence:
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry.payload)
    if part:
        yield part
