"""ReadyCache is the hot state of one shard in Redis: one method for each `.lua` file, and the plain reads beside them.

Authoritative for nothing: all of it may vanish at any instant. A method raises EpochEnded or Deposed where the script
refused and changed nothing, CacheRefused where Redis itself did, CacheLost where no answer came.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from mqueue.broker.cache import keys
from mqueue.broker.cache.calls import (
    Applied,
    Clocks,
    Crowd,
    Depths,
    Enqueue,
    Fetched,
    FlushPage,
    Limits,
    Outcome,
    RefillBegun,
    Refilled,
    ScanBegun,
    SettleArgs,
    Tick,
)  # fmt: skip
from mqueue.broker.cache.server import Server
from mqueue.broker.faults import CacheRefused, Refusal
from mqueue.broker.format import record
from mqueue.message import BODY_MAX, letter_weight

VERDICT = struct.Struct(">c8s")
OUTCOME = struct.Struct(">ccIHQHQB")
REPLY_HEAD = struct.Struct(">QQQQ")
SEQUENCE = struct.Struct(">Q")
KEY_KEEP_US = 60_000_000  # as flush_done.lua
LIMITS = struct.Struct(">QQQQQ")
KINDS = {"ack": b"a", "nack": b"n", "bury": b"b", "release": b"r", "cancel": b"c"}
SCAN_PAGE = 500
DEPTHS_PAGE = 200  # topics in one call


class ReadyCache(Server):
    """It is the hot state of one shard."""

    # -- any broker ----------------------------------------------------------------------------------------------------

    async def apply(
        self,
        epoch: int,
        node: int,
        previous: int,
        sequence: int,
        enqueues: Sequence[Enqueue],
        settles: Sequence[SettleArgs],
        doubtful: int = 0,
        *,
        stamp: int = 0,
    ) -> Applied:
        """Applies one batch. `doubtful`: the last sequence of this broker whose enqueues may be on no disk; 0: there is
        none. `stamp`: when what is due at once is due (0: it comes from the log); a request whose stamp T does not
        reach is refused, since it can be stamped again.
        """
        args: list[Any] = [epoch, node, SEQUENCE.pack(previous), SEQUENCE.pack(sequence), len(enqueues), len(settles)]
        args += (SEQUENCE.pack(doubtful) if doubtful else b"", stamp, sum(record.buffered_of(e.record) for e in enqueues))
        args += (struct.pack(f">{len(enqueues)}H", *(e.group for e in enqueues)), "".join("1" if e.keyed else "0" for e in enqueues))
        for enqueue in enqueues:
            args += enqueue[1:] if enqueue.keyed else enqueue[1:3]
        for id, topic, kind, receipt, error, delays in settles:
            args += (id, topic, KINDS[kind] + receipt)
            if kind != "ack":
                args += (error, delays)
        try:
            reply = (await self._run("apply", *args, full=not enqueues))[1]
        except CacheRefused as refused:
            if not enqueues or refused.kind is not Refusal.FULL:
                raise
            reply = (await self._run("apply", *args, full=True))[1]
        at = REPLY_HEAD.size + VERDICT.size * len(enqueues)
        due_clock, clock, frontier, buffer = REPLY_HEAD.unpack_from(reply)
        verdicts = list(VERDICT.iter_unpack(reply[REPLY_HEAD.size : at]))
        return Applied(due_clock, clock, frontier, buffer, verdicts, [Outcome._make(o) for o in OUTCOME.iter_unpack(reply[at:])])

    async def fetch(
        self, epoch: int, node: int, topics: Sequence[str], limit: int, lease_ms: int, waiting: bool, partial: bool = False
    ) -> Fetched:
        """Leases messages. `partial`: leaves out the topics that need the leader, and names them."""
        answer = await self._run("fetch", epoch, node, limit, lease_ms, int(waiting), BODY_MAX, int(partial), *topics)
        status = answer[0].decode()
        if status == "ok":
            return Fetched(status, int(answer[1]), answer[2], answer[3], answer[4], [name.decode() for name in answer[5]])
        if status == "ask":
            return Fetched(status, closed=[name.decode() for name in answer[1]])
        return Fetched(status, int(answer[1]) if status == "nothing" else 0)

    async def extend(self, epoch: int, items: Sequence[tuple[bytes, bytes, bytes, int]]) -> bytes:
        """Renews leases. An item is id, topic, receipt (empty: any) and lease ms. Returns one letter each: o, s, g."""
        args = [part for item in items for part in item]
        letters: bytes = (await self._run("extend", epoch, *args))[1]
        return letters

    async def join(self, epoch: int, node: int, sequence: int | None, applied: int | None = None) -> tuple[int | None, int, int]:
        """Sets (None: only asks) what this broker's next batch names as its predecessor. Returns applied before, due
        clock, clock.

        Raises Behind where what is applied is not `applied`: somebody has moved it since it was asked.
        """
        packed = (b"" if number is None else SEQUENCE.pack(number) for number in (sequence, applied))
        answer = await self._run("join", epoch, node, *packed)
        return (SEQUENCE.unpack(answer[1])[0] if answer[1] else None), int(answer[2]), int(answer[3])

    async def clocks(self, epoch: int, wall_us: int) -> Clocks:
        """Places what has become due, and returns the clocks."""
        return Clocks(*(int(x) for x in (await self._run("clocks", epoch, wall_us))[1:]))

    async def wait_for_wake(self, node: int, timeout: float) -> str | None:
        """Returns the next topic on which a waiter should be woken; behind `!` those that are open now, one a line; `@`
        where this broker leads, and something is due.
        """
        return await self._pop(keys.wake(self.shard, node), timeout)

    async def pass_wake(self, epoch: int, topic: str) -> None:
        await self._run("pass_wake", epoch, topic)

    async def has_key(self, hashes: Sequence[bytes], now_us: int) -> list[bytes | None]:
        """Returns the key records. Those that PostgreSQL has stay here for KEY_KEEP_US more: the batch that comes
        must find them, too.
        """
        told: list[bytes | None] = await self._io(lambda: self._redis.hmget(keys.idempotency(self.shard), hashes))
        kept = {hash: now_us + KEY_KEEP_US for hash, one in zip(hashes, told, strict=True) if one and record.is_flushed(one)}
        if kept:
            await self._io(lambda: self._redis.zadd(keys.key_ends(self.shard), kept, xx=True, gt=True))
            told = await self._io(lambda: self._redis.hmget(keys.idempotency(self.shard), hashes))
        return told

    async def moved_keys(self) -> tuple[int, int]:
        """Returns how often keys of whole requests were moved into PostgreSQL in this epoch, and when the last of them
        ends, µs: 0 where there is none.
        """
        got = await self._io(lambda: self._redis.hmget(keys.shard(self.shard), "keys_no", "keys_until"))
        return int(got[0] or 0), int(got[1] or 0)

    async def record(self, id: bytes) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Returns the record, body and error text of a message."""
        pipe = self._redis.pipeline(transaction=True)
        for key in (keys.record(self.shard), keys.body(self.shard), keys.error(self.shard)):
            pipe.hget(key, id)
        return tuple(await self._io(pipe.execute))

    async def dead(self, topic: str, limit: int, after: int, size: int) -> tuple[list[tuple[bytes, bytes, bytes | None]], int | None]:
        """Returns record, body and error of the dead messages that no flush has buried yet, by id, above `after`; and
        the id after which some were left out, since these weigh `size` bytes.
        """
        low = b"(" + struct.pack(">Q", after) if after else b"-"
        ids = await self._io(lambda: self._redis.zrangebylex(keys.dead(self.shard, topic), low, b"+", 0, limit))
        found: list[tuple[bytes, bytes, bytes | None]] = []
        for id in ids:
            r, b, e = await self.record(id)
            if r is None or b is None:
                continue
            found.append((r, b, e))
            size -= letter_weight(len(b), 0, len(e or b""))
            if size <= 0:
                return found, int.from_bytes(id)
        return found, None

    async def topics(self) -> list[str]:
        return sorted(t.decode() for t in await self._io(lambda: self._redis.smembers(keys.topics(self.shard))))

    async def depths(self, topics: Sequence[str]) -> list[Depths]:
        found: list[Depths] = []
        for start in range(0, len(topics), DEPTHS_PAGE):
            numbers = (await self._run("depths", "", *topics[start : start + DEPTHS_PAGE]))[1:]
            found += (Depths(*numbers[at : at + 6]) for at in range(0, len(numbers), 6))
        return found

    async def trimmed(self) -> int:
        """Returns the last dirty number that is flushed, as far as Redis knows it in every record."""
        return int(await self._io(lambda: self._redis.hget(keys.shard(self.shard), "trimmed")) or 0)

    async def last_dirty(self) -> int:
        """Returns the number of the last dirty entry of this epoch, flushed or not."""
        return int(await self._io(lambda: self._redis.hget(keys.shard(self.shard), "number")) or 0)

    async def gauges(self) -> dict[str, int]:
        """Returns how much there is. `used`: bytes of all; `taken`: of the buffer, those that no enqueue may have."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.llen(keys.dirty(self.shard))
        pipe.hmget(keys.shard(self.shard), "buffer", "epoch", "clock", "used", "limits")
        pipe.zcard(keys.delayed(self.shard))
        pipe.zcard(keys.leases(self.shard))
        pipe.hlen(keys.record(self.shard))
        dirty, (buffer, epoch, clock, used, limits), delayed, leases, records = await self._io(pipe.execute)
        numbers = {"dirty": dirty, "delayed": delayed, "leased": leases, "records": records}
        buffer_max, redis_max = LIMITS.unpack(limits)[3:] if limits else (0, 0)
        size = int(used or 0)
        lacks = min(size - (redis_max - buffer_max), buffer_max) if redis_max else 0
        numbers |= {"epoch": int(epoch or 0), "clock": int(clock or 0), "used": size}
        return numbers | {"buffer": max(0, int(buffer or 0)), "taken": max(0, int(buffer or 0), lacks)}

    async def reach(self, epoch: int, node: int) -> bool:
        """Writes that this broker was here, whatever epoch Redis knows and whichever server it is. Returns whether it
        is full; all but what is new goes on then. It does not queue with the calls. `epoch`: the one this broker works
        in, 0: none; if Redis is read-only now, it may not be what it was.
        """
        try:
            return bool((await self._try("reach", epoch, node))[1])
        except CacheRefused as refused:
            if refused.kind is not Refusal.FULL:
                raise
        return bool((await self._try("reach", epoch, node, full=True))[1])

    async def run_id_of_server(self) -> str:
        return str((await self._io(lambda: self._redis.info("server")))["run_id"])

    async def version(self) -> str:
        """Returns the version of Redis that this server is, or that it does as (a Valkey is no older than 7.2)."""
        return str((await self._io(lambda: self._redis.info("server"))).get("redis_version", ""))

    async def evicts(self) -> str | None:
        """Returns the policy by which this server throws keys away when its memory is full; None where it does not."""
        memory = await self._io(lambda: self._redis.info("memory"))
        policy = str(memory.get("maxmemory_policy", ""))
        return None if policy == "noeviction" or not int(memory.get("maxmemory", 0)) else policy

    # -- the leader ----------------------------------------------------------------------------------------------------

    async def lead(self, term: int, token: str, limits: Limits) -> int | None:
        """Raises the term. Returns the epoch Redis knows. Raises Deposed where it knows a later term, or this one with
        another `token`.
        """
        answer = await self._run("lead", "", term, token, _limits(limits))
        return int(answer[1]) if answer[1] else None

    async def wait_for_ask(self, timeout: float) -> None:
        """Waits until a topic asks to be refilled."""
        await self._pop(keys.ask(self.shard), timeout)

    async def take_asked(self, epoch: int, term: int, limit: int) -> list[str]:
        """Takes topics of one namespace that asked to be refilled; the namespaces take turns."""
        return [name.decode() for name in (await self._run("take_asked", epoch, term, limit))[1]]

    async def ask_flush(self) -> None:
        """Asks the leader to flush all there is, now."""
        await self._run("ask_flush", "")

    async def wait_for_flush(self, timeout: float) -> bool:
        """Waits until somebody asks for a flush; False: nobody did. `timeout` 0: no wait. A blocked call's timeout is
        only looked at ten times a second.
        """
        if timeout <= 0:
            return await self._io(lambda: self._redis.lpop(keys.flush(self.shard))) is not None
        return await self._pop(keys.flush(self.shard), timeout) is not None

    async def tick(self, epoch: int, term: int, wall_us: int, node: int = 0, wait_us: int = 0) -> Tick:
        """Places what is due, and ends leases. `node`: the leader's, which is told where something is due before the
        next tick, `wait_us` from now at most.
        """
        answer = await self._run("tick", epoch, term, wall_us, node, wait_us)
        return Tick(*(int(x) for x in answer[1:]))

    async def flush_read(self, epoch: int, term: int, skip: int, ids_max: int, bytes_max: int, newest: int) -> FlushPage:
        return FlushPage(*(await self._run("flush_read", epoch, term, skip, ids_max, bytes_max, newest))[1:])

    async def flush_done(
        self, epoch: int, term: int, up_to: int, versions: Iterable[tuple[bytes, bytes]], key_hashes: Sequence[bytes], *, trims: bool = True
    ) -> tuple[int, int]:
        """Reports what a flush has written. Versions: of an id, as its record has it. `trims`: also trims the dirty
        list up to that number. Returns entries left, bytes taken of the buffer.
        """
        pairs = [part for version in versions for part in version]
        answer = await self._run("flush_done", epoch, term, up_to, int(trims), len(pairs) // 2, len(key_hashes), *pairs, *key_hashes)
        return answer[1], int(answer[2])

    async def request_keys(self, epoch: int, term: int, keep: int, limit: int) -> list[tuple[bytes, bytes]]:
        """Returns keys of whole requests beyond `keep`, those that end first: hash, key record."""
        answer = await self._run("request_keys", epoch, term, keep, limit)
        return list(zip(answer[1], answer[2], strict=True))

    async def forget_keys(self, epoch: int, term: int, until: int, keys_: Sequence[tuple[bytes, bytes]]) -> int:
        """Forgets keys that PostgreSQL has now, where they are as they were read. `until`: when the last of them ends.
        Returns how many went.
        """
        return int((await self._run("forget_keys", epoch, term, until, *(part for key in keys_ for part in key)))[1])

    async def refill_begin(self, epoch: int, term: int, topics: Sequence[str]) -> RefillBegun:
        a = await self._run("refill_begin", epoch, term, *topics)
        found = {topic: (a[n], a[n + 1]) for topic, n in zip(topics, range(8, len(a), 2), strict=True)}
        return RefillBegun(int(a[1]), SEQUENCE.unpack(a[2])[0], int(a[3]), a[4], a[5], a[6], bool(a[7]), found)

    async def refill_end(self, epoch: int, term: int, pages: Sequence[tuple[str, Sequence[tuple[bytes, bytes]], bytes]]) -> list[Refilled]:
        """A page is a topic, its rows, and the first key left out. Returns what was done to each, in their order."""
        args: list[Any] = [len(pages)]
        for topic, rows, left_out in pages:
            args += (topic, left_out, len(rows))
            for row in rows:
                args += row
        a = await self._run("refill_end", epoch, term, *args, full=not any(rows for _, rows, _ in pages))
        return [Refilled(*a[n : n + 4]) for n in range(1, len(a), 4)]

    async def time_scan_begin(self, epoch: int, term: int) -> ScanBegun:
        a = await self._run("time_scan_begin", epoch, term)
        return ScanBegun(int(a[1]), int(a[2]), SEQUENCE.unpack(a[3])[0], a[4], a[5])

    async def time_scan_end(self, epoch: int, term: int, due: int, id: int, rows: Iterable[tuple[bytes, bytes]]) -> int:
        flat = [part for row in rows for part in row]
        return int((await self._run("time_scan_end", epoch, term, due, SEQUENCE.pack(id), *flat, full=not flat))[1])

    async def arrive(self, epoch: int, term: int, rows: Sequence[tuple[bytes, bytes]]) -> set[int]:
        """Returns the ids that must come again later."""
        answer = await self._run("arrive", epoch, term, *(part for row in rows for part in row))
        return {int.from_bytes(id) for id in answer[2]}

    async def evict(self, epoch: int, term: int, topic: str, count: int, size: int = 0) -> tuple[int, int]:
        """Takes the greatest out, so many or so many bytes (0: any). Returns how many stay ready, the bytes taken."""
        answer = await self._run("evict", epoch, term, topic, count, size)
        return answer[1], answer[2]

    async def crowded(self, epoch: int, term: int, topics: int) -> Crowd:
        """Returns what Redis holds of its budget, and of so many topics those with ready messages."""
        _, used, soft, names, fetched, ready = await self._run("crowded", epoch, term, topics)
        found = [(name.decode(), int(at), many) for name, at, many in zip(names, fetched, ready, strict=True)]
        return Crowd(int(used), int(soft), found)

    async def idle_topics(self, epoch: int, term: int, idle_us: int, empty_idle_us: int, limit: int) -> tuple[list[str], int]:
        """Looks at some topics by chance. Returns those to be evicted, and how many that held nothing are forgotten."""
        answer = await self._run("idle_topics", epoch, term, idle_us, empty_idle_us, limit)
        return [t.decode() for t in answer[1]], int(answer[2])

    async def frontier(self, topic: str) -> bytes | None:
        """Returns the frontier of a topic; None where the topic is unknown."""
        found: bytes | None = await self._io(lambda: self._redis.hget(keys.topic(self.shard, topic), "frontier"))
        return found

    async def leases(self, limit: int) -> list[bytes]:
        """Returns the leased records whose leases end last."""
        ids = await self._io(lambda: self._redis.zrevrange(keys.leases(self.shard), 0, limit - 1))
        found: list[bytes] = []
        for at in range(0, len(ids), SCAN_PAGE):
            page = ids[at : at + SCAN_PAGE]
            got = await self._io(partial(self._redis.hmget, keys.record(self.shard), page))
            found += [data for data in got if data is not None and data[:1] == b"l"]
        return found

    async def known(self, ids: Sequence[int]) -> set[int]:
        """Returns which of these messages have a record."""
        got = await self._io(lambda: self._redis.hmget(keys.record(self.shard), [id.to_bytes(8) for id in ids]))
        return {id for id, data in zip(ids, got, strict=True) if data is not None}

    async def clear(self, term: int) -> None:
        """Unlinks all keys of this shard, of any format, but the shard hash, whose epoch goes first. Raises Deposed
        where a later leader stands.
        """
        pattern = keys.tag(self.shard).replace("{", "\\{").replace("}", "\\}") + "*"
        cursor = b"0"
        while True:
            cursor = (await self._run("clear", "", term, cursor, pattern, SCAN_PAGE))[1]
            if cursor == b"0":
                return

    async def load_leases(self, term: int, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Loads leased records with their bodies, between `clear` and `open_epoch`."""
        await self._run("load_leases", "", term, *(part for row in rows for part in row))

    async def load_keys(self, term: int, keys_: Sequence[tuple[bytes, bytes]], until: int = 0) -> None:
        """Loads the keys of whole requests, between `clear` and `open_epoch`. `until`: when the last of those that only
        PostgreSQL has ends, µs.
        """
        for at in range(0, max(1, len(keys_)), SCAN_PAGE):
            await self._run("load_keys", "", term, until, *(part for key in keys_[at : at + SCAN_PAGE] for part in key))

    async def open_epoch(self, epoch: int, term: int, clock: tuple[int, int], limits: Limits, positions: dict[int, int]) -> None:
        """Opens an epoch in a Redis that was cleared. `clock`: where its clock begins, at least and at most."""
        flat = [part for node, position in positions.items() for part in (node, SEQUENCE.pack(position))]
        await self._run("open_epoch", epoch, term, *clock, _limits(limits), *flat)


def _limits(limits: Limits) -> bytes:
    return LIMITS.pack(limits.ready_cap, limits.ready_hard, limits.delayed_max, limits.buffer_max, limits.redis_max)
