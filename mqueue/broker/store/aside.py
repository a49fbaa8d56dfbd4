"""What PostgreSQL refuses as a row (a trigger, a constraint, a text that it cannot store) is set aside, in the table
`refused`, as bytes that it cannot refuse; nothing else of the transaction waits for it. A row that was set aside counts
as live in the ledger until its message ends.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection

from mqueue.broker.format import record
from mqueue.broker.format.record import Record
from mqueue.broker.store.queries import fetch
from mqueue.broker.store.rows import named_row
from mqueue.broker.store.write import Ledger, array
from mqueue.lifecycle import State

T = TypeVar("T")
# SQLSTATE classes that tell of what was to be written: data, constraints, program limits (too large for an index), a
# trigger that raises. All others tell of the server or the session.
ABOUT_DATA = frozenset({"22", "23", "54", "P0"})


def refuses_data(error: BaseException) -> bool:
    """Is it the data that PostgreSQL refuses? Else it is busy, read-only, full, away or wrong."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in ABOUT_DATA


async def by_parts(
    connection: AsyncConnection[Any],
    things: Sequence[T],
    put: Callable[[Sequence[T]], Awaitable[None]],
    set_aside: Callable[[T, str], Awaitable[None]],
) -> int:
    """Writes what PostgreSQL takes of these, and sets aside what it refuses: it halves them until a refused one stands
    alone. Returns how many were set aside. `set_aside` is given one of them, and the reason.
    """
    if not things:
        return 0
    try:
        async with connection.transaction():
            await put(things)
        return 0
    except psycopg.Error as error:
        if not refuses_data(error):
            raise
        if len(things) == 1:
            await set_aside(things[0], f"{error.sqlstate}: {error}".replace("\0", "")[:1000])
            return 1
    half = len(things) // 2
    return sum([await by_parts(connection, part, put, set_aside) for part in (things[:half], things[half:])])


class Aside:
    """Sets rows aside within a transaction. `topic_ids`: by `namespace/topic`."""

    def __init__(self, connection: AsyncConnection[Any], topic_ids: dict[str, int], ledger: Ledger) -> None:
        self._connection = connection
        self._topic_ids = topic_ids
        self._ledger = ledger

    async def row(self, row: tuple[Record, bytes | None, bytes], reason: str) -> None:
        r, error, body = row
        topic_id = self._topic_ids[r.topic]
        if await _keep(self._connection, r, topic_id, error, body, reason):
            self._ledger.add(topic_id, "enqueued")


async def changed_row(
    connection: AsyncConnection[Any], id: int, topic_id: int, state: bytes, version: int, attempts: int, due: int, error: str, reason: str
) -> None:
    """Sets a row aside that PostgreSQL has, since it refuses what becomes of it. `state`: x dead, else it waits."""
    [found] = await fetch(connection, "row_to_refuse", id=id)
    data, body = named_row(found)
    r = record.unpack(data)._replace(
        state=State.DEAD.value if state == b"x" else State.SPILL.value, version=version, attempts=attempts, due=due
    )
    await _keep(connection, r, topic_id, error.encode() or None, body, reason)


async def _keep(connection: AsyncConnection[Any], r: Record, topic_id: int, error: bytes | None, body: bytes, reason: str) -> bool:
    """Returns whether PostgreSQL had nothing of this message."""
    args = {"id": r.id, "topic_id": topic_id, "version": r.version, "state": r.state, "body": body, "error": error, "reason": reason}
    [(is_new,)] = await fetch(connection, "set_aside", **args)
    return bool(is_new)


async def take_back(connection: AsyncConnection[Any], written: Sequence[tuple[int, int]], ledger: Ledger) -> set[int]:
    """Forgets what was set aside of these messages (id, version) in no later version. Returns of which there was."""
    if not written:
        return set()
    ids, versions = zip(*written, strict=True)
    rows = await fetch(connection, "take_back", ids=array(ids), versions=array(versions))
    for _, topic_id in rows:
        ledger.add(topic_id, "enqueued", -1)
    return {id for id, _ in rows}


async def refused_among(connection: AsyncConnection[Any], ids: Sequence[int]) -> dict[int, int]:
    """Returns the version of those of these messages that are set aside."""
    return dict(await fetch(connection, "refused_among", ids=list(ids)))
