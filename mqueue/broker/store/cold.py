"""Past Redis, PostgreSQL does what Redis would: one transaction a call while the shard is cold, and enqueues by arrival
while it is hot.

Every transaction begins by holding the shard row on its epoch and mode: nobody can open another one while it lasts.
Whoever ends a lease holds the row of its message; whoever begins one holds it too, and the insert into `lease` decides.
The clock is that of `tick`, which the leader moves: all of this epoch stands on one clock.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from mqueue.broker.faults import EpochEnded
from mqueue.broker.format import record
from mqueue.broker.store import aside, write
from mqueue.broker.store.queries import fetch, sql
from mqueue.broker.store.rows import Key, Row, behind, leased_row
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.store.write import END_OF_STATE, Ledger

ARRIVES = "hot"  # the mode in which an enqueue past Redis must be announced to the leader
HINT_MAX_US = 5_000_000  # ahead of the last tick


class KeyTaken(Exception):
    """One of these idempotency keys is in use: nothing was written."""


class Clocks(NamedTuple):
    """Two times in µs. `due`: what lies there or below is due, for everybody; each transaction is told more than those
    before it, so what it stamps with it comes after all that was due when it was asked. `now`: the shard clock, up to a
    tick later: delays and leases are counted from it.
    """

    due: int
    now: int


@dataclass(slots=True)
class Fresh:
    """New messages, as (record, body), and their keys."""

    rows: Sequence[Row]
    keys: Sequence[Key] = ()


class Leased(NamedTuple):
    """What a settle must know of a message that is there. `receipt` empty: nobody has it."""

    id: int
    topic_id: int
    topic: str
    attempts: int
    max_retries: int
    version: int
    due: int
    node: int
    sequence: int
    receipt: bytes
    cancelling: bool = False


class Change(NamedTuple):
    """What becomes of a message whose lease ends. `state`: a acked, c cancelled, x dead, n waits again."""

    id: int
    topic_id: int
    state: bytes
    version: int
    attempts: int
    due: int
    error: str


class ColdStore:
    def __init__(self, store: ShardStore) -> None:
        self._store = store

    @asynccontextmanager
    async def _holding(
        self, epoch: int, hint: int, mode: str = "cold", kind: str = "write"
    ) -> AsyncIterator[tuple[AsyncConnection[Any], Clocks]]:
        """Begins a transaction within an epoch. `hint`: what the caller takes for the shard clock, by its monotonic
        one: a tick may be late.

        Raises EpochEnded, StoreLost.
        """
        async with self._store.transaction(kind) as connection:
            rows = await (await connection.execute(sql("fence_mode"), {"epoch": epoch, "mode": mode}, binary=True)).fetchall()
            if not rows:
                raise EpochEnded(None)
            due, now = rows[0]
            yield connection, Clocks(due, max(due, now, min(hint, due + HINT_MAX_US)))

    async def enqueue(
        self, epoch: int, hint: int, mode: str, make: Callable[[Clocks, dict[bytes, int]], Fresh], unique_keys: Sequence[bytes] = ()
    ) -> None:
        """Enqueues what `make` makes, given the clocks, and who waits under which of `unique_keys`. Raises KeyTaken,
        or RowRefused where PostgreSQL refuses one of them, and nothing is written.
        """
        async with self._holding(epoch, hint, mode) as (connection, clocks):
            waiting: dict[bytes, int] = {}
            if unique_keys:
                await connection.execute(sql("one_unique"))
                waiting = dict(await fetch(connection, "unique_waiting", unique_keys=list(unique_keys), now=clocks.now))
            fresh = make(clocks, waiting)
            if fresh.keys:
                await _claim(connection, fresh.keys, clocks.now)
            rows = [(record.unpack(data), None, body) for data, body in fresh.rows]
            ids = await self._store.topic_ids(r.topic for r, _, _ in rows)
            await write.copy(connection, "copy_message", rows, ids)
            if mode == ARRIVES:
                await connection.execute(sql("put_arrivals"), {"ids": [r.id for r, _, _ in rows]})
            ledger = Ledger()
            for r, _, _ in rows:
                ledger.add(ids[r.topic], "enqueued")
            await write.lock_and_write_ledger(connection, ledger)

    async def fetch(
        self, epoch: int, hint: int, namespace: str, topics: Sequence[str], limit: int, lease_ms: int, size: int
    ) -> tuple[list[Row], int]:
        """Leases up to `limit` messages, least key first, of at most `size` bytes. Returns leased records with their
        bodies; the clock.
        """
        async with self._holding(epoch, hint, kind="read") as (connection, (due, now)):
            await connection.execute(sql("commit_loosely"))  # a lease that a crash undoes is one that ended early
            await connection.execute(sql("one_fetch"), {"namespace": namespace, "names": list(topics)})
            number = (await (await connection.execute(sql("next_lease_number"), binary=True)).fetchall())[0][0]
            args = {"namespace": namespace, "names": list(topics), "limit": limit, "bytes": size, "lease_ms": lease_ms}
            rows = await (
                await connection.execute(sql("lease_page"), {**args, "due": due, "now": now, "epoch": epoch, "number": number}, binary=True)
            ).fetchall()
        return [leased_row(row, epoch, number, *behind(row)) for row in rows], now

    async def settle(self, epoch: int, hint: int, ids: Sequence[int], decide: Callable[[dict[int, Leased], Clocks], list[Change]]) -> int:
        """Writes what `decide` decides, given those messages that are there, and the clocks. Returns how many rows
        PostgreSQL has refused: they are set aside.
        """
        async with self._holding(epoch, hint) as (connection, clocks):
            held = {id for (id,) in await fetch(connection, "lock_leased", ids=list(ids))}
            there = [leased(row) for row in await fetch(connection, "leased_messages", ids=list(ids))]
            # what is not held was free; leased since, it is so after this settle
            return await apply(connection, decide({m.id: m if m.id in held else m._replace(receipt=b"") for m in there}, clocks), clocks.now)

    async def cancel(self, epoch: int, hint: int, topics: Mapping[int, str]) -> dict[int, Leased]:
        """Cancels messages. `topics`: `namespace/topic` by id. Returns those that were there: who had a receipt runs,
        and its cancellation is asked for; the others are no more.
        """
        async with self._holding(epoch, hint) as (connection, clocks):
            await connection.execute(
                sql("lock_messages"), {"ids": list(topics)}
            )  # a fetch passes them by: they go, unless one has them already
            rows = [leased(row) for row in await fetch(connection, "leased_messages", ids=list(topics))]
            there = [m for m in rows if m.topic == topics[m.id]]
            if running := [m for m in there if m.receipt]:
                namespaces = [m.topic.partition("/")[0] for m in running]
                await connection.execute(sql("request_cancel"), {"ids": [m.id for m in running], "namespaces": namespaces})
            await apply(connection, [cancelled(m) for m in there if not m.receipt], clocks.now)
        return {m.id: m for m in there}

    async def extend(self, epoch: int, hint: int, items: Sequence[tuple[int, str, bytes, int]]) -> set[int]:
        """Renews leases. An item is id, `namespace/topic`, receipt (empty: any), lease ms (0: the message's own).
        Returns the ids renewed.
        """
        async with self._holding(epoch, hint, kind="read") as (connection, (_, now)):
            receipts = [_numbers(receipt) for _, _, receipt, _ in items]
            args = {
                "ids": [item[0] for item in items], "topics": [item[1] for item in items], "leases": [item[3] for item in items],
                "epochs": [epoch for epoch, _ in receipts], "numbers": [number for _, number in receipts], "now": now,
            }  # fmt: skip
            return {row[0] for row in await (await connection.execute(sql("extend_leases"), args, binary=True)).fetchall()}


def cancelled(m: Leased) -> Change:
    return Change(m.id, m.topic_id, b"c", m.version, m.attempts, m.due, "")


def failed(m: Leased, due: int, error: str, *, buried: bool = False) -> Change:
    """Returns what becomes of a delivery that ended without an ack: the attempt counts."""
    if m.cancelling:
        return cancelled(m)
    attempts = min(m.attempts + 1, 65535)
    dead = buried or attempts > m.max_retries
    return Change(m.id, m.topic_id, b"x" if dead else b"n", m.version + 1, attempts, m.due if dead else due, error)


async def apply(connection: AsyncConnection[Any], changes: Sequence[Change], clock: int) -> int:
    """Ends the leases of these messages, which are held, and writes what becomes of them. Returns how many rows
    PostgreSQL has refused: they are set aside.
    """
    if not changes:
        return 0
    await connection.execute(sql("delete_leases"), {"ids": [c.id for c in changes]})
    ledger = Ledger()
    waiting, dead = ([c for c in changes if c.state == state] for state in (b"n", b"x"))

    async def wait(some: Sequence[Change]) -> None:
        await connection.execute(sql("settle_rows"), _columns(some) | {"dues": [c.due for c in some]})

    async def bury(some: Sequence[Change]) -> None:
        for (topic_id,) in await fetch(connection, "bury_rows", **_columns(some), died_at=clock):
            ledger.add(topic_id, "dead")

    async def set_aside(c: Change, reason: str) -> None:
        await aside.changed_row(connection, c.id, c.topic_id, c.state, c.version, c.attempts, c.due, c.error, reason)

    refused = await aside.by_parts(connection, waiting, wait, set_aside) + await aside.by_parts(connection, dead, bury, set_aside)
    for state in (b"a", b"c"):
        ended = [(c.id, c.version) for c in changes if c.state == state]
        for topic_id in (await write.delete_messages(connection, ended)).values() if ended else ():
            ledger.add(topic_id, END_OF_STATE[state])
    await write.lock_and_write_ledger(connection, ledger)
    return refused


async def _claim(connection: AsyncConnection[Any], keys: Sequence[Key], clock: int) -> None:
    columns = dict(zip(("key_hashes", "body_hashes", "ids", "expiries", "runs"), (list(c) for c in zip(*keys, strict=True)), strict=True))
    if len(await fetch(connection, "claim_keys", **columns, now=clock)) < len(keys):
        raise KeyTaken


def _columns(changes: Sequence[Change]) -> dict[str, list[Any]]:
    return {
        "ids": [c.id for c in changes],
        "versions": [c.version for c in changes],
        "attempts": [c.attempts for c in changes],
        "errors": [c.error for c in changes],
    }


def leased(row: Sequence[Any]) -> Leased:
    *fields, epoch, number, cancelling = row
    return Leased._make((*fields, b"" if number is None else epoch.to_bytes(4) + number.to_bytes(8), cancelling))


def _numbers(receipt: bytes) -> tuple[int | None, int | None]:
    """Returns epoch and number of a receipt; nothing where any will do."""
    if not receipt:
        return None, None
    return int.from_bytes(receipt[:4]), min(int.from_bytes(receipt[4:]), 2**63 - 1)
