"""Flush, replay and cold batches write with these statements, within a transaction of theirs; the ledger goes with
them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import AsyncConnection

from mqueue.broker.format import record
from mqueue.broker.format.record import Record
from mqueue.broker.store.queries import sql
from mqueue.broker.store.rows import Key

COPY_SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_END = b"\xff\xff"
ENDS = ("acked", "dead", "expired", "purged", "cancelled")
END_OF_STATE = {b"a": "acked", b"x": "dead", b"e": "expired", b"c": "cancelled"}


class Ledger:
    """The changes per topic, gathered over a transaction."""

    def __init__(self) -> None:
        self.changes: dict[int, Counter[str]] = defaultdict(Counter)

    def add(self, topic_id: int, what: str, count: int = 1) -> None:
        self.changes[topic_id][what] += count

    def arguments(self) -> dict[str, list[int]]:
        columns = {what: [c[what] for c in self.changes.values()] for what in ("enqueued", *ENDS)}
        return {"ids": list(self.changes), **columns}


def array(numbers: Iterable[int]) -> str:
    """Writes an array as PostgreSQL does: a fifth of the work of the library's way, which has every number dumped by
    itself.
    """
    return "{" + ",".join(map(str, numbers)) + "}"


async def copy(
    connection: AsyncConnection[Any],
    name: str,
    rows: Sequence[tuple[Record, bytes | None, bytes]],
    ids: dict[str, int],
) -> None:
    async with connection.cursor() as cursor, cursor.copy(sql(name)) as copy:
        parts = [COPY_SIGNATURE]
        size = 0
        for r, error, body in rows:
            row = record.copy_row(r, ids[r.topic], error, body)
            parts.append(row)
            size += len(row)
            if size > 1 << 18:
                await copy.write(b"".join(parts))
                parts, size = [], 0
        parts.append(COPY_END)
        await copy.write(b"".join(parts))


async def stage(connection: AsyncConnection[Any], rows: Sequence[tuple[Record, bytes | None, bytes]], ids: dict[str, int]) -> None:
    await connection.execute(sql("create_staging"))
    await connection.execute(sql("clear_staging"))
    await copy(connection, "copy_staging", rows, ids)


async def write_again(
    connection: AsyncConnection[Any],
    rows: Sequence[tuple[Record, bytes | None, bytes]],
    ids: dict[str, int],
    ledger: Ledger,
) -> None:
    """Writes rows PostgreSQL may have, of some version: the greater one stays."""
    if not rows:
        return
    await stage(connection, rows, ids)
    for topic_id, count in await (await connection.execute(sql("upsert_message"))).fetchall():
        ledger.add(topic_id, "enqueued", count)


async def bury(
    connection: AsyncConnection[Any],
    rows: Sequence[tuple[Record, bytes | None, bytes]],
    ids: dict[str, int],
    ledger: Ledger,
    died_at: int,
) -> None:
    if not rows:
        return
    await stage(connection, rows, ids)
    for topic_id, count, never_had_one in await (await connection.execute(sql("bury"), {"died_at": died_at})).fetchall():
        ledger.add(topic_id, "dead", count)
        ledger.add(topic_id, "enqueued", never_had_one)


async def delete_messages(connection: AsyncConnection[Any], versions: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Deletes up to these versions; returns id → topic id of those that had a row."""
    args = {"ids": array(id for id, _ in versions), "versions": array(version for _, version in versions)}
    return dict(await (await connection.execute(sql("delete_messages"), args, binary=True)).fetchall())


async def keep_keys(connection: AsyncConnection[Any], keys: Sequence[Key]) -> None:
    columns = zip(*keys, strict=True)
    names = ("key_hashes", "body_hashes", "ids", "expiries", "runs")
    await connection.execute(sql("keep_keys"), {name: list(column) for name, column in zip(names, columns, strict=True)})


async def write_ledger(connection: AsyncConnection[Any], ledger: Ledger) -> None:
    if ledger.changes:
        await connection.execute(sql("move_ledger"), ledger.arguments())


async def lock_and_write_ledger(connection: AsyncConnection[Any], ledger: Ledger) -> None:
    """Locks the topics in one order first: two transactions that write several never wait for each other."""
    if ledger.changes:
        await connection.execute(sql("lock_topics"), {"ids": list(ledger.changes)})
        await write_ledger(connection, ledger)


async def move_positions(connection: AsyncConnection[Any], positions: dict[int, int]) -> None:
    if positions:
        args = {"nodes": list(positions), "positions": list(positions.values())}
        await connection.execute(sql("move_position"), args)
