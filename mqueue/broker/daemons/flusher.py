"""The flusher writes from the write-behind buffer in Redis into PostgreSQL, one transaction at a time. What was acked
meanwhile never gets there.
"""

import asyncio
import math
import struct
import time
from collections.abc import Container, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from mqueue import lifecycle
from mqueue.broker import failpoints
from mqueue.broker.cache.calls import FlushPage
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.faults import StoreLost
from mqueue.broker.format import record
from mqueue.broker.store.leader.flush import FlushBatch, Gone
from mqueue.broker.store.rows import Key
from mqueue.lifecycle import State
from mqueue.message import BATCH_MAX, BODY_MAX

IDS_MAX, IDS_MIN = 5 * BATCH_MAX, 50  # messages in one transaction, about
SLOW_S, FAST_S = 2.0, 0.5  # a flush far from its deadline takes more next time, one on the way to it less
ENTRY = struct.Struct(">QQHQHHH")
TALLY = struct.Struct(">cIH")
GONE = frozenset(state.value for state in lifecycle.GONE)


class Flushed(NamedTuple):
    """What a flush has done. `more`: it did not reach the end of what was there and old enough."""

    pages: int
    more: bool


class Pace:
    """Decides how much a flush takes: where PostgreSQL is slow, so little that it ends before its deadline."""

    def __init__(self) -> None:
        self.ids = IDS_MAX

    def took(self, seconds: float) -> None:
        if seconds > SLOW_S:
            self.ids = max(IDS_MIN, self.ids // 2)
        elif seconds < FAST_S:
            self.ids = min(IDS_MAX, self.ids * 2)


class Flusher:
    """Flushes a shard. `age_us`: how long a batch may wait for its ack."""

    def __init__(self, age_us: int) -> None:
        self._age_us = age_us
        self._pace = Pace()

    async def flush(self, lead: Lead, everything: bool = False) -> Flushed:
        """Makes one transaction; none where nothing is old enough."""
        async with lead.shared.leases:
            return await self._flush(lead, everything)

    async def _flush(self, lead: Lead, everything: bool) -> Flushed:
        shard = lead.shard
        # past half of the buffer there is no time to wait for acks
        hurry = everything or shard.buffer * 2 > shard.buffer_max
        newest = 0 if hurry else max(1, shard.now_us() - self._age_us)
        pages, more = await self._read(lead, newest)
        if not pages:
            return Flushed(0, False)
        began = time.perf_counter()
        batch, versions, key_hashes = gather(pages)
        batch.clock, batch.mirrors = shard.clock_us, lead.mirrors
        try:
            refused = await lead.store.flushes.write(lead.epoch, lead.term, batch)
        except StoreLost:
            self._pace.took(math.inf)
            raise
        self._pace.took(time.perf_counter() - began)
        shard.set_aside(refused)
        await failpoints.ahit("flush.after_commit")
        async with lead.shared.pages:  # not between a page and the script that takes its rows
            await self._done(lead, batch.number, versions, key_hashes)
        shard.metrics.flush_seconds.observe(time.perf_counter() - began)
        shard.metrics.flush_rows.inc(len(batch.fresh) + len(batch.again) + len(batch.dead))
        shard.metrics.elided.inc(sum(count for *_, count in batch.tallies))
        return Flushed(len(pages), more)

    async def _read(self, lead: Lead, newest: int) -> tuple[list[FlushPage], bool]:
        """Returns pages, and whether there are more."""
        pages: list[FlushPage] = []
        skip = size = ids = 0
        while ids < self._pace.ids and size < BODY_MAX:
            page = await lead.shard.cache.flush_read(lead.epoch, lead.term, skip, min(BATCH_MAX, self._pace.ids - ids), BODY_MAX, newest)
            if not page.entries:
                return pages, False
            pages.append(page)
            skip += len(page.entries)
            ids += max(len(page.entries), len(page.ids))  # entries may repeat a few messages, and cost time all the same
            size += sum(len(body) for body in page.bodies if body)
        return pages, True

    async def _done(self, lead: Lead, number: int, versions: list[tuple[bytes, bytes]], key_hashes: list[bytes]) -> None:
        shard = lead.shard
        *parts, last = [slice(n, n + BATCH_MAX) for n in range(0, max(1, len(versions), len(key_hashes)), BATCH_MAX)]
        # all parts at once, so that they do not wait one after the other behind other brokers' batches; the list is
        # trimmed last
        done = partial(shard.cache.flush_done, lead.epoch, lead.term, number)
        await asyncio.gather(*(done(versions[part], key_hashes[part], trims=False) for part in parts))
        left, buffer = await done(versions[last], key_hashes[last])
        shard.buffer = buffer
        shard.room.set()
        shard.metrics.buffer_queue_depth.set(left)
        shard.metrics.buffer_bytes.set(buffer)


def gather(pages: Iterable[FlushPage]) -> tuple[FlushBatch, list[tuple[bytes, bytes]], list[bytes]]:
    """Decides what to write, the versions to report to Redis afterwards, and the keys: idempotency keys that are
    written, unique keys whose messages are (with their ids). It is pure.
    """
    batch = FlushBatch()
    latest: dict[bytes, tuple[bytes, bytes | None, bytes | None, bool]] = {}
    first: dict[bytes, int] = {}
    key_hashes: list[bytes] = []
    for page in pages:
        for entry in page.entries:
            _read_entry(entry, batch, first)
        for id, data, body, error, flag in zip(page.ids, page.records, page.bodies, page.errors, page.in_pg, strict=True):
            if data is not None:
                known = latest[id][3] if id in latest else flag == ord("1")
                latest[id] = (data, body, error, known)
            elif id in latest:
                del latest[id]  # it ended meanwhile, and without a row: its own entry counts it
        key_hashes += _gather_keys(page, batch, first)
    versions: list[tuple[bytes, bytes]] = []
    for id, (data, body, error, in_pg) in latest.items():
        state = data[:1]
        if state in GONE:
            _, version, flushed, number = record.ENDED.unpack_from(data)
            batch.gone.append(Gone(number, version, state, record.topic(data), first[id], flushed > 0))
        elif body is None:
            continue  # PostgreSQL has this version
        elif state == State.DEAD.value:
            batch.dead.append((record.unpack(data), error, body))
        else:
            (batch.again if in_pg else batch.fresh).append((record.unpack(data), error, body))
        versions.append((id, data[record.VERSION]))
    return batch, versions, key_hashes


def _gather_keys(page: FlushPage, batch: FlushBatch, ids: Container[bytes]) -> Iterator[bytes]:
    """Yields what to report of the keys: an idempotency key when it is written, a unique key with each of `ids` that
    waits under it.
    """
    for key_hash, key in zip(page.key_hashes, page.keys, strict=True):
        if key is None:
            continue
        id_of_key, body_hash, _, _, expires, _, kind = record.IDEMPOTENCY.unpack_from(key)
        if kind == b"w":  # a message of a later entry brings the key again
            yield from (key_hash + id for id in record.unique_holders(key) if id in ids)
        else:
            batch.keys.append(Key(key_hash, body_hash, id_of_key, expires))
            yield key_hash


def _read_entry(entry: bytes, batch: FlushBatch, first: dict[bytes, int]) -> None:
    number, _, node, sequence, kinds, ids, _ = ENTRY.unpack_from(entry)
    batch.number, batch.first = max(batch.number, number), batch.first or number
    if node:
        batch.positions[node] = max(sequence, batch.positions.get(node, 0))
    at = ENTRY.size
    for _ in range(kinds):
        state, count, size = TALLY.unpack_from(entry, at)
        at += TALLY.size
        batch.tallies.append((number, entry[at : at + size].decode(), state, count))
        at += size
    for n in range(at, at + 8 * ids, 8):
        first.setdefault(entry[n : n + 8], number)
