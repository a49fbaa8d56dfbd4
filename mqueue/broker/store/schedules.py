"""Schedules are kept in a shard's PostgreSQL, and edited by any broker. `leader/ticks.py` enqueues their ticks."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from mqueue.broker.store.queries import fetch, sql
from mqueue.broker.store.shard import ShardStore
from mqueue.schedule import Schedule


class TooMany(Exception):
    """The namespace has as many as it may have."""


class ScheduleStore:
    def __init__(self, store: ShardStore) -> None:
        self._store = store

    async def page(self, namespace: str, after: str, limit: int) -> list[Schedule]:
        """Returns them by name, above `after`; without their payloads."""
        return await self._all("schedule_page", namespace=namespace, after=after, limit=limit)

    async def find(self, namespace: str, name: str) -> Schedule | None:
        return next(iter(await self._all("schedule_by_name", namespace=namespace, name=name)), None)

    async def delete(self, namespace: str, name: str) -> bool:
        async with self._store.transaction("read") as connection:
            return bool(await fetch(connection, "delete_schedule", namespace=namespace, name=name))

    @asynccontextmanager
    async def editing(self, namespace: str) -> AsyncIterator["Editing"]:
        """Begins one transaction; who else edits this namespace's waits for it. It is undone where the block raises."""
        async with self._store.transaction("read") as connection:
            await connection.execute(sql("lock_schedules"), {"namespace": namespace})
            yield Editing(connection, namespace)

    async def _all(self, statement: str, /, **args: Any) -> list[Schedule]:
        async with self._store.transaction("read") as connection:
            return [Schedule(*row) for row in await fetch(connection, statement, **args)]


class Editing:
    """The schedules of a namespace, held."""

    def __init__(self, connection: AsyncConnection[Any], namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    async def change(self, name: str, decide: Callable[[Schedule | None], Schedule | None], most: int = 1 << 31) -> Schedule | None:
        """Writes what `decide` makes of this one; None: it stays as it is. Raises TooMany where it is new, and there
        are `most`.
        """
        rows = await fetch(self._connection, "schedule", namespace=self._namespace, name=name)
        known = Schedule(*rows[0]) if rows else None
        wanted = decide(known)
        if wanted is None or wanted == known:
            return known
        if known is None and (await fetch(self._connection, "count_schedules", namespace=self._namespace))[0][0] >= most:
            raise TooMany
        await self._connection.execute(sql("put_schedule"), wanted._asdict())
        return wanted

    async def delete(self, name: str) -> None:
        await fetch(self._connection, "delete_schedule", namespace=self._namespace, name=name)
