"""Schedules in a shard's PostgreSQL: how they are edited, by any broker; and how their ticks are enqueued, in one
transaction of the leader.

Exactly one enqueue for each tick follows from that transaction: rows, ledger and the schedule's next tick become true
together or not at all, behind the fence of epoch and term. Where the answer to its COMMIT is lost, the next leader
reads which of the two it was.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from mqueue.broker import failpoints
from mqueue.broker.format import record
from mqueue.broker.store import write
from mqueue.broker.store.leader import LeaderStore
from mqueue.broker.store.queries import sql
from mqueue.broker.store.rows import Row
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.store.write import Ledger
from mqueue.schedule import Schedule


class Ticked(NamedTuple):
    """What the leader decided on a schedule: its messages, the last of its ticks that they are for, and its next
    tick.
    """

    schedule: Schedule
    rows: list[Row]
    last_us: int | None
    next_us: int | None


class TooMany(Exception):
    """The namespace has as many as it may have."""


class ScheduleStore:
    def __init__(self, store: ShardStore) -> None:
        self._store = store

    async def page(self, namespace: str, after: str, limit: int) -> list[Schedule]:
        """By name, above `after`; without their payloads."""
        return await self._all("schedule_page", namespace=namespace, after=after, limit=limit)

    async def find(self, namespace: str, name: str) -> Schedule | None:
        return next(iter(await self._all("schedule_by_name", namespace=namespace, name=name)), None)

    async def delete(self, namespace: str, name: str) -> bool:
        async with self._store.transaction("read") as connection:
            return bool(await _all(connection, "delete_schedule", namespace=namespace, name=name))

    @asynccontextmanager
    async def editing(self, namespace: str) -> AsyncIterator["Editing"]:
        """One transaction; who else edits this namespace's waits for it. Undone where the block raises."""
        async with self._store.transaction("read") as connection:
            await connection.execute(sql("lock_schedules"), {"namespace": namespace})
            yield Editing(connection, namespace)

    async def _all(self, statement: str, /, **args: Any) -> list[Schedule]:
        async with self._store.transaction("read") as connection:
            return [Schedule(*row) for row in await _all(connection, statement, **args)]


class Editing:
    """The schedules of a namespace, held."""

    def __init__(self, connection: AsyncConnection[Any], namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    async def change(self, name: str, decide: Callable[[Schedule | None], Schedule | None], most: int = 1 << 31) -> Schedule | None:
        """`decide`: what becomes of this one; None: it stays as it is. Raises TooMany where it is new, and there are
        `most`.
        """
        rows = await _all(self._connection, "schedule", namespace=self._namespace, name=name)
        known = Schedule(*rows[0]) if rows else None
        wanted = decide(known)
        if wanted is None or wanted == known:
            return known
        if known is None and (await _all(self._connection, "count_schedules", namespace=self._namespace))[0][0] >= most:
            raise TooMany
        await self._connection.execute(sql("put_schedule"), wanted._asdict())
        return wanted

    async def delete(self, name: str) -> None:
        await _all(self._connection, "delete_schedule", namespace=self._namespace, name=name)


# -- the leader --------------------------------------------------------------------------------------------------------


async def is_due(leader: LeaderStore, wall_us: int) -> bool:
    """Has a tick come? `wall_us`: by this broker's wall clock."""
    return bool((await leader.ask("schedule_is_due", now=wall_us))[0][0])


async def take_due(connection: AsyncConnection[Any], wall_us: int, limit: int) -> tuple[list[Schedule], int]:
    """Schedules whose next tick has come, held; and the time by which it has."""
    rows = await _all(connection, "due_schedules", now=wall_us, limit=limit)
    return [Schedule(*row[:-1]) for row in rows], rows[0][-1] if rows else wall_us


async def enqueue(store: ShardStore, connection: AsyncConnection[Any], ticked: Sequence[Ticked], *, announce: bool, stamp_us: int) -> None:
    """`announce`: Redis serves, and the leader must place them. `stamp_us`: when they came, by the shard clock."""
    rows = [(record.unpack(data), None, body) for t in ticked for data, body in t.rows]
    await failpoints.ahit("schedule.before_insert")
    if rows:
        ids = await store.topic_ids(r.topic for r, _, _ in rows)
        await write.copy(connection, "copy_message", rows, ids)
        ledger = Ledger()
        for r, _, _ in rows:
            ledger.add(ids[r.topic], "enqueued")
        await connection.execute(sql("lock_topics"), {"ids": list(ledger.changes)})
        await write.write_ledger(connection, ledger)
        if announce:
            await connection.execute(sql("put_arrivals"), {"ids": [r.id for r, _, _ in rows]})
            # as a replay does: the next epoch's clock begins past what was stamped in this one
            await connection.execute(sql("move_shard"), {"number": 0, "clock": stamp_us + 1})
    await connection.execute(
        sql("move_schedules"),
        {
            "namespaces": [t.schedule.namespace for t in ticked],
            "names": [t.schedule.name for t in ticked],
            "nexts": [t.next_us for t in ticked],
            "lasts": [t.last_us for t in ticked],
        },
    )
    await failpoints.ahit("schedule.before_commit")


async def _all(connection: AsyncConnection[Any], statement: str, /, **args: Any) -> list[Any]:
    return await (await connection.execute(sql(statement), args, binary=True)).fetchall()
