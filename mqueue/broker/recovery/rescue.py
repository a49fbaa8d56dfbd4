"""`mqueue wal replay` brings the log of a broker whose host is dead into the system, from another machine, as the
broker's own next start would.

Per shard, what lies beyond the broker's position (what PostgreSQL has of it):

- records of epochs that have ended go into PostgreSQL as late ones: rows are announced as arrivals, and outcomes of
  other brokers' messages count no more, exactly as in `membership.py`;
- records of the present epoch that Redis has applied wait there for the leader's flush, like everybody's: they are not
  touched;
- those of the present epoch that Redis has not applied were never answered. They go to Redis, numbered, so that each
  comes once.

Nothing here depends on the broker staying dead. Its position moves in the same transaction as its rows, and a replay
whose position another one has moved writes nothing (`Overtaken`), so a second run, a second copy of the directory, or a
later start of the original find nothing left. A shard that recovers is waited for: then it is known which epoch the
records belong to.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.embedded import StoreUrls
from mqueue.broker.faults import CacheLost, EpochEnded, Fault, Overtaken, StoreLost
from mqueue.broker.format import tail
from mqueue.broker.format.log_record import ENQUEUE, LogRecord
from mqueue.broker.recovery.membership import catch_up, parts
from mqueue.broker.shard import HOT
from mqueue.broker.store.replay import replay
from mqueue.broker.store.seats import Seat, ShardRow
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.wal.identity import State
from mqueue.broker.wal.recovery import Found, inspect
from mqueue.broker.wal.survey import shards
from mqueue.clock import SystemClock
from mqueue.errors import MQueueError

ALIVE_S = 5.0  # a broker heard of since then runs
PAUSE_S = 0.1

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Rescued:
    """What came of a log. `messages`, `ended`: replayed into PostgreSQL, and of these those that had ended. `outcomes`:
    of messages that are not in this log, come too late to count. `brought`: messages brought to Redis. `left`: records
    that PostgreSQL does not have yet.
    """

    shard: int
    messages: int = 0
    ended: int = 0
    outcomes: int = 0
    brought: int = 0
    left: int = 0

    def count(self, folded: tail.Tail) -> None:
        self.messages += len(folded.messages)
        self.ended += sum(told.end is not None for told in folded.messages.values())
        self.outcomes += len(folded.others)


async def rescue(directory: Path, state: State, urls: StoreUrls, *, dry_run: bool = False, wait_s: float = 60.0) -> AsyncIterator[Rescued]:
    """Rescues each shard that has a log here. The directory is held. `wait_s`: for a shard that recovers, and for the
    flush of what Redis has.

    Raises MQueueError where a store does not answer, or the broker runs; WalCorrupt (nothing of that shard was
    replayed), OSError.
    """
    for number, path in shards(directory).items():
        found = await asyncio.to_thread(inspect, path, number, state.uuid)
        if number >= len(urls.database_urls):
            raise MQueueError(f"{path} is of shard {number}, but there are {len(urls.database_urls)} databases: give all of them, in order")
        store = ShardStore(number, urls.database_urls[number])
        cache = ReadyCache(number, urls.redis_addrs[number % len(urls.redis_addrs)], urls.redis_password or None)
        try:
            await store.open()
            yield await _Rescue(store, cache, state, found, wait_s).run(dry_run)
        except Fault as fault:
            raise MQueueError(f"shard {number}: {fault}") from fault
        finally:
            await cache.close()
            await store.close()


async def seat_of(store: ShardStore, state: State, silent_s: float) -> Seat:
    """Returns the broker's seat. Raises MQueueError where it is not known, or was heard of within `silent_s`."""
    seat = await store.seat(state.uuid)
    if seat is None:
        raise MQueueError(f"shard {store.number} knows no broker {state.uuid}: are these its databases, or was its number freed?")
    if seat.silent_s < silent_s:
        raise MQueueError(
            f"node {seat.node} was heard of {seat.silent_s:.1f} s ago: if it runs, stop it; if its host died, wait for {silent_s:.0f} s"
        )
    return seat


class _Rescue:
    def __init__(self, store: ShardStore, cache: ReadyCache, state: State, found: Found, wait_s: float) -> None:
        self._store = store
        self._cache = cache
        self._state = state
        self._found = found
        self._wait_s = wait_s
        self._done = Rescued(store.number)

    async def run(self, dry_run: bool) -> Rescued:
        seat = await seat_of(self._store, self._state, ALIVE_S)
        row = await self._store.row()
        if row.number != self._store.number:
            raise MQueueError(f"this database is shard {row.number}, not {self._store.number}: give the databases in their order")
        if dry_run:
            return await asyncio.to_thread(self._look, row, seat.position)
        clock = SystemClock()
        deadline = clock.monotonic() + self._wait_s
        joined = 0  # the epoch whose Redis has all of this log that is of it
        while (position := (await seat_of(self._store, self._state, ALIVE_S)).position) < self._found.last:
            row = await self._store.row()
            if row.mode != "recovering":
                try:
                    position = await self._replay_late(row, seat.node, position)
                    if row.mode == HOT and joined < row.epoch:
                        await self._bring(row, seat.node, position)
                        joined = row.epoch
                except (EpochEnded, Overtaken, CacheLost) as fault:  # look again
                    logger.info("looking again", shard=row.number, reason=str(fault))
            elif clock.monotonic() > deadline:
                raise StoreLost("it is recovering: does a broker run, and its Redis answer?")
            if position < self._found.last and clock.monotonic() > deadline:
                break
            await asyncio.sleep(PAUSE_S)
        else:
            await self._store.bury_orphans(seat.node, self._lives_over(seat))
        self._done.left = sum(1 for _ in self._found.records(position))
        return self._done

    def _lives_over(self, seat: Seat) -> int:
        """Returns the sequence below which what is not in PostgreSQL now never comes. A later life may have another
        log.
        """
        count = self._state.start_count
        return (count if seat.started > count << 40 else count + 1) << 40

    def _look(self, row: ShardRow, position: int) -> Rescued:
        for part in parts(self._late(row, position)):
            self._done.count(tail.fold(part))
        self._done.left = sum(1 for entry in self._found.records(position) if entry.epoch >= row.epoch)
        return self._done

    def _late(self, row: ShardRow, position: int) -> Iterator[LogRecord]:
        return (entry for entry in self._found.records(position) if entry.epoch < row.epoch)

    async def _replay_late(self, row: ShardRow, node: int, position: int) -> int:
        for part in parts(self._late(row, position)):
            folded = await asyncio.to_thread(tail.fold, part)
            if refused := await replay(self._store, row.epoch, node, folded, clock=row.clock_us, late=True, after=position):
                logger.error("PostgreSQL has refused rows: they are set aside, see the table refused", shard=row.number, count=refused)
            self._done.count(folded)
            position = folded.last
        return position

    async def _bring(self, row: ShardRow, node: int, position: int) -> None:
        """Brings what of the present epoch Redis does not have."""
        cache = self._cache
        cache.run_id = row.run_id
        applied, _, _ = await cache.join(row.epoch, node, None)
        start = max(applied or 0, position)
        if any(entry.kind == ENQUEUE for entry in self._found.records(start)):
            await cache.join(row.epoch, node, start, applied)
            _, brought = await catch_up(cache, node, self._found.records, row.epoch, start)
            self._done.brought += brought
        await cache.ask_flush()
