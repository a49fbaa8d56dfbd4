"""Past Redis, a batch of the committer is one transaction in PostgreSQL, and what a settle does is decided here.
`store/cold.py` has the statements.

The *cold path* serves a shard whose Redis is away: enqueues are committed, not logged (their origin sequence is 0);
settles change the row at once. A broker that alone cannot reach a hot Redis is *apart*: its enqueues go the same way
and come to Redis as arrivals; fetch and settle it must refuse, since Redis decides those.
"""

import asyncio
import struct
from collections.abc import Sequence

from mqueue.broker.cache.calls import Outcome, SettleArgs, asks_to_cancel
from mqueue.broker.commit.batch import Batch, EnqueueRequest, LookAgain, Repeated, SettleRequest, Stamp, number
from mqueue.broker.faults import CacheLost, RowRefused
from mqueue.broker.format import record
from mqueue.broker.format.entries import Enqueued
from mqueue.broker.shard import APART, Shard
from mqueue.broker.store.cold import Change, Clocks, ColdStore, Fresh, KeyTaken, Leased, cancelled, failed
from mqueue.broker.store.rows import Key
from mqueue.broker.wal.ids import IdSource
from mqueue.errors import Invalid, KeyReused

PLACED_S = 2.0
PLACED_PAUSE_S = 0.03

NOT_THERE = Outcome(b"g", b"\0", 0, 0, 0, 0, 0, 0)
STALE, RUNNING = NOT_THERE._replace(verdict=b"s"), NOT_THERE._replace(verdict=b"r")


async def commit(shard: Shard, ids: IdSource, batch: Batch) -> None:
    """Answers the requests of a batch. Raises as the store does: then none of them is answered, and nothing is known of
    them.
    """
    cold = ColdStore(shard.store)
    if batch.enqueues:
        try:
            await _enqueue(cold, shard, ids, batch.enqueues)
        except (KeyTaken, KeyReused, RowRefused):
            # this batch or an earlier one has the key, or PostgreSQL refuses a row: each request is tried by itself
            for request in batch.enqueues:
                await _enqueue_one(cold, shard, ids, request)
    if batch.settles and shard.mode == APART:
        raise CacheLost(f"Redis of shard {shard.number} cannot be reached from here")
    if batch.settles:
        await _settle(cold, shard, batch.settles)


async def _enqueue(cold: ColdStore, shard: Shard, ids: IdSource, requests: Sequence[EnqueueRequest]) -> None:
    made: list[list[int]] = []

    def make(clocks: Clocks, waiting: dict[bytes, int]) -> Fresh:
        due, now = clocks
        shard.saw_cold_clock(now)
        if shard.mode == APART:  # what it last heard of the clock in Redis
            due = now = max(now, shard.clocks.most_us())
        stamp = Stamp(shard.node, 0, now, due)
        fresh = [fresh_of(number(request, ids, stamp), waiting) for request in requests]
        made[:] = [told for told, _ in fresh]
        keys = [key for _, one in fresh for key in one.keys]
        if len({key.key_hash for key in keys}) < len(keys):
            raise KeyTaken
        return Fresh([row for _, one in fresh for row in one.rows], keys)

    unique_keys = {d.unique for request in requests for d in request.drafts if d.unique}
    await cold.enqueue(shard.epoch, shard.now_us(), "hot" if shard.mode == APART else "cold", make, sorted(unique_keys))
    if shard.mode == APART:
        await _until_placed(shard, [id for told in made for id in told])
    for request, told in zip(requests, made, strict=True):
        if not request.done.done():
            request.done.set_result(told)


async def _until_placed(shard: Shard, ids: Sequence[int]) -> None:
    """Waits until the leader has placed these messages: a fetch that comes after an earlier answer would pass them by.
    Past PLACED_S that is accepted.
    """
    deadline = shard.clock.monotonic() + PLACED_S
    while await shard.store.unplaced(ids) and shard.clock.monotonic() < deadline:
        await asyncio.sleep(PLACED_PAUSE_S)


def fresh_of(messages: Sequence[Enqueued], waiting: dict[bytes, int]) -> tuple[list[int], Fresh]:
    """Returns the ids a request is told, and what is to be written of it: of two messages under one key of their own
    the first. Raises KeyReused.

    `waiting`: who waits under a unique key; new messages go into it.
    """
    told: list[int] = []
    rows: list[tuple[bytes, bytes]] = []
    keys: dict[bytes, Key] = {}
    for item, m in enumerate(messages):
        id = int.from_bytes(m.record[record.ID])
        if m.unique in waiting and m.key_hash not in keys:
            told.append(waiting[m.unique])
            continue
        if m.key_hash:
            _, body_hash, _, _, expires, _, kind = record.IDEMPOTENCY.unpack(m.key)
            first = keys.setdefault(m.key_hash, Key(m.key_hash, body_hash, id, expires, b"" if kind == b"r" else None))
            if first.body_hash != body_hash:
                raise KeyReused("this idempotency key was used with another message", item=item, field="idempotency_key")
            if first.id != id:
                told.append(first.id)
                continue
        told.append(id)
        rows.append((m.record, m.body))
        if m.unique:
            waiting[m.unique] = id
    return told, Fresh(rows, [key if key.runs is None else key._replace(runs=record.pack_runs(told)) for key in keys.values()])


async def _enqueue_one(cold: ColdStore, shard: Shard, ids: IdSource, request: EnqueueRequest) -> None:
    error: Exception
    try:
        return await _enqueue(cold, shard, ids, [request])
    except KeyReused as reused:
        error = reused
    except RowRefused as refused:  # nothing was written: it can still be told
        error = Invalid(f"PostgreSQL refuses this message: {str(refused).partition(chr(10))[0]}")
    except KeyTaken:  # the engine looks again, and finds which
        error = LookAgain()
        if request.key_hash and (known := await shard.store.request_key(request.key_hash, shard.now_us())):
            same = known[0] == request.body_hash
            error = Repeated() if same else KeyReused("this Idempotency-Key was used with another request", field="Idempotency-Key")
    if not request.done.done():
        request.done.set_exception(error)


# -- settles -----------------------------------------------------------------------------------------------------------


async def _settle(cold: ColdStore, shard: Shard, requests: Sequence[SettleRequest]) -> None:
    asked = [args for request in requests for args in request.args]
    outcomes: list[Outcome] = []

    def decide(there: dict[int, Leased], clocks: Clocks) -> list[Change]:
        shard.saw_cold_clock(clocks.now)
        outcomes[:], changes = decided([args for args in asked if not asks_to_cancel(args)], there, clocks)
        return changes

    ids = [int.from_bytes(args.id) for args in asked if not asks_to_cancel(args)]
    if ids:
        shard.set_aside(await cold.settle(shard.epoch, shard.now_us(), ids, decide))
    settled = iter(outcomes)
    to_cancel = {int.from_bytes(args.id): args.topic.decode() for args in asked if asks_to_cancel(args)}
    there = await cold.cancel(shard.epoch, shard.now_us(), to_cancel) if to_cancel else {}
    outcomes = [cancel_outcome(there.get(int.from_bytes(args.id))) if asks_to_cancel(args) else next(settled) for args in asked]
    at = 0
    for request in requests:
        if not request.done.done():
            request.done.set_result(outcomes[at : at + len(request.args)])
        at += len(request.args)


def cancel_outcome(m: Leased | None) -> Outcome:
    """Returns what becomes of a message that somebody without a lease cancels; `m` is the message as it was."""
    if m is None:
        return NOT_THERE
    if m.receipt:
        return RUNNING
    return Outcome(b"o", b"c", m.version, m.attempts, m.due, m.node, m.sequence, 1)


def decided(asked: Sequence[SettleArgs], there: dict[int, Leased], clocks: Clocks) -> tuple[list[Outcome], list[Change]]:
    """Returns what each settle does, one after the other, as cache/lua/apply.lua decides it. It is pure; `there` is not
    changed.
    """
    there = dict(there)
    outcomes: list[Outcome] = []
    changes: list[Change] = []
    for args in asked:
        m = there.get(int.from_bytes(args.id))
        if m is None or m.topic.encode() != args.topic:
            outcomes.append(NOT_THERE)
            continue
        if not m.receipt or args.receipt not in (b"", m.receipt):
            outcomes.append(STALE)
            continue
        change = _change(m, args, clocks)
        changes.append(change)
        outcomes.append(Outcome(b"o", change.state, change.version, change.attempts, change.due, m.node, m.sequence, 1))
        if change.state == b"n":
            there[m.id] = m._replace(receipt=b"")
        else:
            del there[m.id]
    return outcomes, changes


def _change(m: Leased, args: SettleArgs, clocks: Clocks) -> Change:
    delays = struct.unpack(f">{len(args.delays) // 8}d", args.delays)
    if args.kind == "ack":
        return Change(m.id, m.topic_id, b"a", m.version, m.attempts, m.due, "")
    if args.kind == "cancel" or m.cancelling:
        return cancelled(m)
    if args.kind == "release":
        due, version = (_after(delays[0], clocks), m.version + 1) if delays else (m.due, m.version)
        return Change(m.id, m.topic_id, b"n", version, m.attempts, due, "")
    due = _after(delays[min(m.attempts, len(delays) - 1)], clocks)
    return failed(m, due, args.error.decode(), buried=args.kind == "bury")


def _after(delay: float, clocks: Clocks) -> int:
    return clocks.now + int(delay) if delay else clocks.due
