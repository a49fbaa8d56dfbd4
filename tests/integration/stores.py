"""One shard on real stores, driven by hand: two brokers' batches and logs, and the leader's daemons cut into their
stages.
"""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from itertools import count
from typing import Any, TypeVar, cast

import psycopg

from mqueue.broker.cache import keys
from mqueue.broker.cache.calls import Applied, Enqueue, Limits, Outcome, SettleArgs, is_logged
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.daemons.flusher import Flusher, gather
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.prefetcher import Prefetcher
from mqueue.broker.daemons.pruner import Pruner
from mqueue.broker.embedded import StoreUrls
from mqueue.broker.engine.cancel_notices import Cancellations
from mqueue.broker.engine.canceller import Canceller
from mqueue.broker.format import entries, log_record, record, tail
from mqueue.broker.format.entries import Enqueued
from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.format.record import LAST, Record
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import Shard
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.leader.store import LeaderStore
from mqueue.broker.store.migrate import migrate
from mqueue.broker.store.replay import replay
from mqueue.broker.store.seats import ShardRow
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.wal.log import ShardLog
from mqueue.clock import SystemClock

T = TypeVar("T")
NUMBER = 1  # database and hash tag of the shard used here
NODES = (1, 2)
START_US = 1_700_000_000_000_000  # where the shard clock begins
SECOND = 1_000_000
HORIZON_US = 8 * SECOND
LIMITS = Limits(ready_cap=3, ready_hard=4, delayed_max=4, buffer_max=1 << 24, redis_max=(1 << 24) + 3_600)  # eight messages fill it
TABLES = ("refused", "cancel_request", "message", "dead_letter", "arrival", "orphan", "idempotency", "lease", "topic")
Stages = AsyncIterator[str]


class MovedClock(SystemClock):
    """It goes on when a test moves the shard clock on, as every clock does."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Broker:
    """Its view of the shard, and its log in memory, as recovery reads it."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.log: list[LogRecord] = []
        self.started = 0

    async def batch(
        self, enqueues: Sequence[Enqueue], settles: Sequence[SettleArgs], *, logged: bool, repeated: bool, voided: bool = True
    ) -> Applied:
        """One batch; `repeated`: its first answer gets lost. Not `logged`: the broker dies before the disk has it, and
        starts again. Not `voided`: it dies before it notes what was refused.
        """
        shard = self.shard
        sequence = shard.sequence
        groups: dict[int, int] = {}
        numbered = [e._replace(group=groups.setdefault(e.group, len(groups))) for e in enqueues]
        stamp = max((record.CREATED.unpack_from(e.body)[1] for e in enqueues), default=0)
        apply = (shard.epoch, shard.node, shard.previous, sequence, numbered, settles)
        applied = await shard.cache.apply(*apply, stamp=stamp)
        if repeated:
            again = await shard.cache.apply(*apply, stamp=stamp)
            assert (again.verdicts, again.outcomes) == (applied.verdicts, applied.outcomes)
        shard.previous = sequence
        shard.clocks.saw(applied.due_clock, applied.clock, shard.clock.monotonic(), applied.frontier)
        if logged:
            self._write(sequence, enqueues, settles, applied.outcomes)
            refused = [e.record[record.ID] for e, (letter, _) in zip(enqueues, applied.verdicts, strict=True) if letter != b"o"]
            if refused and voided:
                self.log.append(LogRecord(sequence, shard.epoch, log_record.VOID, entries.pack_void(refused)))
        else:
            self.started = sequence + 1
        return applied

    def _write(self, sequence: int, enqueues: Sequence[Enqueue], settles: Sequence[SettleArgs], outcomes: Sequence[Outcome]) -> None:
        if enqueues:
            messages = entries.pack_enqueued(logged(enqueues))
            self.log.append(LogRecord(sequence, self.shard.epoch, log_record.ENQUEUE, messages))
        changed = [
            (int.from_bytes(args.id), *outcome[1:], args.topic, args.error)
            for args, outcome in zip(settles, outcomes, strict=True)
            if is_logged(args, outcome)
        ]
        if changed:
            self.log.append(LogRecord(sequence, self.shard.epoch, log_record.OUTCOME, entries.pack_settled(changed)))


def _begins(row: ShardRow) -> tuple[int, int]:
    """The shard clock of the next epoch, at least and at most."""
    clock = row.clock_us or START_US
    return clock, clock


class World:
    """`fresh()` begins an example: empty stores, a new epoch."""

    def __init__(self, urls: StoreUrls) -> None:
        self._runner = asyncio.Runner()
        self.urls = urls
        self._url = urls.database_urls[NUMBER]
        migrate(self._url)
        self.cache = ReadyCache(NUMBER, urls.redis_addrs[0], urls.redis_password)
        self.store = ShardStore(NUMBER, self._url)
        self.metrics = Metrics().shard(NUMBER)
        self.flusher, self.prefetcher, self.pruner = Flusher(0), Prefetcher(HORIZON_US), Pruner()
        self.ids = count(1 << 40)
        self.brokers: dict[int, Broker] = {}
        self.time = MovedClock()
        self.run(self._open())

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(what)

    async def _open(self) -> None:
        await self.store.open()
        self.connection = await self.store.connect()
        self.session = LeaderSession(self.store, self.connection)
        self.leader = LeaderStore(self.session)
        await self.store.create(NUMBER + 1)
        await self.connection.execute("DELETE FROM broker")
        for node in NODES:
            await self.store.register_broker(uuid.uuid4(), node)
        self.term = await self.leader.raise_term(0, NODES[0])

    def close(self) -> None:
        self.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        await self._empty()
        await self.connection.execute("DELETE FROM broker")
        await self.connection.execute("DELETE FROM shard")
        await self.connection.close()
        await self.store.close()
        await self.cache.close()

    async def _empty(self) -> None:
        self.term = (await self.store.row()).term
        for table in TABLES:
            await self.connection.execute(psycopg.sql.SQL("DELETE FROM {}").format(psycopg.sql.Identifier(table)))
        await self.connection.execute("UPDATE broker SET position = 0, started = 0, replayed = 0")
        await self.connection.execute("UPDATE shard SET clock_us = 0, dirty_number = 0")
        await self.connection.execute("UPDATE tick SET clock_us = 0, ticked_at = NULL")
        await self.connection.execute("ALTER SEQUENCE cold_clock RESTART")
        self.store._topic_ids.clear()
        await self._wipe()

    async def _wipe(self) -> None:
        """As FLUSHALL does."""
        await self.cache.clear(self.term)
        await self.cache._redis.delete(keys.shard(NUMBER))

    async def fresh(self) -> None:
        await self._empty()
        self.brokers = {}
        for node in NODES:
            shard = Shard(NUMBER, node, self.cache, self.store, cast(ShardLog, None), self.time, self.metrics, start=0)
            shard.serving.set()
            self.brokers[node] = Broker(shard)
        await self._next_epoch()

    # -- epochs --------------------------------------------------------------------------------------------------------

    async def lose_redis(self, wiped: bool, order: Sequence[int]) -> None:
        """All of Redis is gone (`wiped`: even what a recovery leaves alone); the brokers replay, in this order; a new
        epoch opens.
        """
        if wiped:
            await self._wipe()
        await self._next_epoch(order)

    async def _next_epoch(self, order: Sequence[int] = NODES) -> None:
        """What `Epochs.reopen` does, but that no lease goes on; and every broker's `Membership`."""
        epoch = await self.leader.raise_epoch(self.term, 0)
        row = await self.store.row()
        for node in order:
            broker = self.brokers[node]
            position, _ = await self.store.heartbeat(node, epoch, self.term, broker.started, self.time.wall_us())
            told = tail.fold(entry for entry in broker.log if entry.sequence > position)
            await replay(self.store, epoch, node, told, clock=max(row.clock_us, broker.shard.now_us()), late=False)
            await self.store.bury_orphans(node, broker.started)
        await self.cache.clear(self.term)
        async with self.leader.opening_hot(epoch, self.term, "test", _begins) as opening:
            await self.cache.load_keys(self.term, await opening.request_keys(1000))
            await self.cache.open_epoch(epoch, self.term, opening.clock, LIMITS, await opening.positions())
        for node, broker in self.brokers.items():
            shard = broker.shard
            applied, _, _ = await self.cache.join(epoch, node, None)
            _, due_clock, clock = await self.cache.join(epoch, node, shard.sequence, applied)
            shard.previous, shard.epoch = shard.sequence, epoch
            shard.clocks.saw(due_clock, clock, shard.clock.monotonic())
        self.lead = Lead(self.brokers[NODES[0]].shard, self.leader, self.term, epoch)

    async def arrive_late(self, broker: Broker, enqueue: Enqueue) -> None:
        """A message of an earlier epoch, whose broker was away when that closed: it is only in its log, and comes by
        arrival.
        """
        shard, epoch = broker.shard, self.lead.epoch
        told = tail.fold([LogRecord(shard.sequence, epoch - 1, log_record.ENQUEUE, entries.pack_enqueued(logged([enqueue])))])
        await replay(self.store, epoch, shard.node, told, clock=shard.now_us(), late=True)
        applied, _, _ = await self.cache.join(epoch, shard.node, None)
        await self.cache.join(epoch, shard.node, shard.sequence, applied)
        shard.previous = shard.sequence

    async def look_to_cancel(self, node: int, id: int) -> tuple[str, bytes]:
        """What a broker finds of a message before it cancels it: its topic (empty: nothing), and what PostgreSQL
        has.
        """
        canceller = Canceller([], [], cast(Cancellations, None), Metrics())
        return await canceller._find(self.brokers[node].shard, id)

    # -- time ----------------------------------------------------------------------------------------------------------

    async def advance(self, us: int) -> None:
        await self.cache._redis.hincrby(keys.shard(NUMBER), "clock", us)
        self.time.ahead_s += us / 1e6

    async def tick(self) -> int:
        """Returns the clock."""
        tick = await self.cache.tick(self.lead.epoch, self.lead.term, 0)
        self.lead.shard.clocks.saw(0, tick.clock, self.lead.shard.clock.monotonic())
        return tick.clock

    async def clock(self) -> int:
        """As the last script call left it."""
        return int(await self.cache._redis.hget(keys.shard(NUMBER), "clock"))

    async def held(self) -> int:
        """No lease ends before this: no broker was there for a while."""
        return int(await self.cache._redis.hget(keys.shard(NUMBER), "held") or 0)

    async def due_clock(self) -> int:
        """What was due by the last script call."""
        clock, due = await self.cache._redis.hmget(keys.shard(NUMBER), "clock", "t_due")
        return min(int(clock), int(due) - 1)

    async def time_frontier(self) -> tuple[int, int]:
        due, id = await self.cache._redis.hmget(keys.shard(NUMBER), "t_due", "t_id")
        return int(due), int.from_bytes(id)

    # -- the leader's daemons, cut where others may come between -------------------------------------------------------

    async def flush(self, newest: int, repeated: bool, lost: bool) -> Stages:
        """`repeated`: the last answer of Redis gets lost, and the script runs again. `lost`: the answer of the commit,
        so it ends there.
        """
        lead = self.lead
        pages, _ = await self.flusher._read(lead, newest)
        if not pages:
            return
        yield "read"
        batch, versions, key_hashes = gather(pages)
        batch.clock = lead.shard.clock_us
        await lead.store.flushes.write(lead.epoch, lead.term, batch)
        yield "committed"
        if lost:
            return
        await self.flusher._done(lead, batch.number, versions, key_hashes)
        if repeated:
            yield "done once"
            await self.flusher._done(lead, batch.number, versions, key_hashes)

    async def refill(self, topics: Sequence[str], page: int) -> Stages:
        lead = self.lead
        begun = await self.cache.refill_begin(lead.epoch, lead.term, topics)
        most = 1 if begun.tight else begun.cap
        room = {t: (frontier, begun.hard - ready) for t, (frontier, ready) in begun.topics.items() if frontier != LAST and ready < most}
        if not room:
            return
        yield "begun"
        pages = await lead.store.pages.refill(room, begun.clock, begun.t_due, begun.t_id, page * len(room), begun.page)
        yield "selected"
        await self.cache.refill_end(lead.epoch, lead.term, pages)

    async def scan(self, page: int) -> Stages:
        lead = self.lead
        clock, due, id, room, size = await self.cache.time_scan_begin(lead.epoch, lead.term)
        if due - clock > HORIZON_US // 2 or room <= 0 or not size:
            return
        yield "begun"
        rows, reached = await lead.store.pages.due(due, id, clock + HORIZON_US, min(page, room), size)
        yield "selected"
        await self.cache.time_scan_end(lead.epoch, lead.term, *reached, rows)

    async def prune(self) -> Stages:
        await self.pruner.prune(self.lead)
        yield "pruned"

    async def evict(self, topic: str, slice: int) -> Stages:
        while (await self.cache.evict(self.lead.epoch, self.lead.term, topic, slice))[0]:
            yield "a slice"

    async def work(self, topics: Iterable[str]) -> None:
        """All that the leader has to do now, to its end."""
        while (await self.flusher.flush(self.lead, everything=True)).more:
            pass
        await self.prefetcher.scan(self.lead)
        for topic in topics:
            await self.prefetcher.refill(self.lead, [topic])

    async def check_used(self) -> None:
        """What the scripts have counted of what Redis holds is what is there."""
        pipe, k = self.cache._redis.pipeline(transaction=True), NUMBER
        pipe.hget(keys.shard(k), "used")
        pipe.hvals(keys.record(k))
        pipe.hvals(keys.error(k))
        pipe.lrange(keys.dirty(k), 0, -1)
        pipe.hlen(keys.idempotency(k))
        used, records, errors, dirty, many_keys = await pipe.execute()
        there = sum(map(weight, records)) + sum(len(e) + 100 for e in errors) + sum(len(e) + 16 for e in dirty) + 300 * many_keys
        counted = int(used or 0)
        assert counted == there, f"counted {counted} bytes, there are {there}"

    # -- what is there -------------------------------------------------------------------------------------------------

    async def ready(self, topic: str) -> list[bytes]:
        """The ids of a topic's ready messages."""
        return [member[-8:] for member in await self.cache._redis.zrange(keys.ready(NUMBER, topic), 0, -1)]

    async def rows(self) -> dict[int, tuple[int, int]]:
        """id → due, attempts"""
        found = await self.connection.execute("SELECT id, deliver_after_us, attempts FROM message")
        return {id: (due, attempts) for id, due, attempts in await found.fetchall()}

    async def dead_letters(self) -> set[int]:
        return {id for (id,) in await (await self.connection.execute("SELECT id FROM dead_letter")).fetchall()}

    async def ledger(self) -> dict[str, int]:
        names = ("enqueued", "acked", "dead", "expired", "purged", "cancelled")
        sums = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in names)
        row = await (await self.connection.execute(f"SELECT {sums} FROM topic")).fetchone()
        assert row is not None
        return dict(zip(names, row, strict=True))

    async def left_in_redis(self) -> dict[str, Any]:
        """Everything a drained shard must not hold."""
        redis, k = self.cache._redis, NUMBER
        left: dict[str, Any] = {}
        for name in [key.decode() async for key in redis.scan_iter(match=keys.prefix(NUMBER) + "*")]:
            kind = name.removeprefix(keys.prefix(k)).split(":")[0]
            if kind in {"record", "body", "error", "dirty", "spill", "ready", "delayed", "leases", "dead"}:
                left[name] = await redis.type(name)
            elif kind == "topic":
                counters = await redis.hmget(name, "delayed", "leased", "unflushed")
                if any(int(c or 0) for c in counters):
                    left[name] = counters
        buffer = int(await redis.hget(keys.shard(k), "buffer") or 0)
        return left | ({"buffer": buffer} if buffer else {})


def weight(data: bytes) -> int:
    """The bytes that a record counts with its body, as `weight` of cache/lua/lib/unit.lua rounds them."""
    if data[:1] in (b"a", b"c", b"e"):
        return len(data) + 200
    size = record.unpack(data).size
    step = 1 << max(0, size.bit_length() - 3)
    return -(-size // step) * step


def logged(enqueues: Sequence[Enqueue]) -> list[Enqueued]:
    """As the committer writes them to the log."""
    size = record.IDEMPOTENCY.size
    of_requests = {e.group for e in enqueues if e.key[size - 1 : size] == b"r"}
    return [Enqueued(e.record, e.body, e.key_hash, e.key[:size], e.group in of_requests and not e.key_hash) for e in enqueues]


def keyed(broker: Broker, enqueues: Sequence[Enqueue], key: str, whole: bool) -> list[Enqueue]:
    """The same messages as one request with a key (`whole`), or each with a key of its own. The body counts for nothing
    here.
    """
    pack, shard = record.IDEMPOTENCY.pack, broker.shard
    expires = shard.clock_us + 600 * SECOND
    if whole:
        first = enqueues[0]
        ids = [int.from_bytes(e.record[record.ID]) for e in enqueues]
        own = pack(ids[0], bytes(16), shard.node, shard.sequence, expires, 0, b"r") + record.pack_runs(ids)
        return [e._replace(group=ids[0], key_hash=hashed(key) if e is first else b"", key=own if e is first else b"") for e in enqueues]
    made = []
    for n, e in enumerate(enqueues):
        own = pack(int.from_bytes(e.record[record.ID]), bytes(16), shard.node, shard.sequence, expires, 0, b"u")
        made.append(e._replace(key_hash=hashed(f"{key} {n}"), key=own))
    return made


def hashed(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def message(
    broker: Broker, id: int, *, topic: str, priority: int, delay_us: int, ttl_us: int, max_retries: int, at_once: int = 0
) -> tuple[Enqueue, Record]:
    """A new message as the committer stamps it. `at_once`: when it is due if it has no delay; 0: by the last answer."""
    shard = broker.shard
    at_once = at_once or shard.clocks.due_clock
    due = shard.clocks.most_us() + delay_us if delay_us else at_once
    body = record.body(at_once, b"%d" % id, None, None)
    data = record.new(
        priority=priority, due=due, id=id, expires=shard.clock_us + ttl_us if ttl_us else 0, max_retries=max_retries, lease_ms=30_000,
        node=shard.node, sequence=shard.sequence, size=len(body), topic=topic.encode(),
    )  # fmt: skip
    return Enqueue(id, data, body, b"", b""), record.unpack(data)
