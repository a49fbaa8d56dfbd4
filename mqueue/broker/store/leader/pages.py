"""The leader reads pages of rows for Redis here, in the order Redis wants them, and the arrivals
that it places there.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mqueue.broker.format import record
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.queries import sql
from mqueue.broker.store.rows import PAYLOAD, Row, message_row, named_row

KEY_COLUMNS = ("priority", "rank", "due", "id")
FIRST_PARTS = (-(2**31), 0, 0, 0)  # of a key below all others, and above
LAST_PARTS = (2**31 - 1, 2**31 - 1, 2**63 - 1, 2**63 - 1)

B = TypeVar("B")


class PageStore:
    """A page is one statement; announcing and deleting arrivals is one fenced transaction each."""

    def __init__(self, session: LeaderSession) -> None:
        self._session = session

    async def refill(self, topic: str, frontier: bytes, now: int, t_due: int, t_id: int, limit: int, size: int) -> tuple[list[Row], bytes]:
        """Reads rows at or above the frontier that are due, in key order, at most `limit` rows and `size` bytes.
        Returns them, and the first key left out.
        """
        begin = dict(zip(KEY_COLUMNS, record.key_parts(frontier) if frontier else FIRST_PARTS, strict=True))
        args = {"topic_id": await self._topic_id(topic), **begin, "now": now, "t_due": t_due, "t_id": t_id}
        rows = await self._session.ask("refill_page", **args, limit=limit + 1, bytes=size)
        return _page(rows, limit, lambda row: message_row(topic, row), lambda r: record.key(r[1], r[2], r[3], r[0]), record.LAST)

    async def due(self, due: int, id: int, until: int, limit: int, size: int) -> tuple[list[Row], tuple[int, int]]:
        """Reads rows due from (due, id) up to `until`. Returns them, and how far this page reaches."""
        rows = await self._session.ask("time_page", due=due, id=id, until=until, limit=limit + 1, bytes=size)
        shaped = [(row[0], *row[2:], row[1]) for row in rows]
        return _page(shaped, limit, lambda row: message_row(row[-1], row), lambda r: (r[3], r[0]), (until, 0))

    async def overdue(self, topic: str, after: bytes, frontier: bytes, before: int, limit: int) -> list[bytes]:
        """Returns the keys of rows above `after` and below the frontier that were due before then (µs)."""
        topic_id = await self._topic_id(topic)
        begin = record.key_parts(after) if after else FIRST_PARTS
        end = record.key_parts(frontier) if frontier != record.LAST else LAST_PARTS
        args = dict(zip((*KEY_COLUMNS, *(f"to_{column}" for column in KEY_COLUMNS)), (*begin, *end), strict=True))
        rows = await self._session.ask("overdue_page", topic_id=topic_id, **args, before=before, limit=limit)
        return [record.key(*row) for row in rows]

    async def arrivals(self, limit: int) -> tuple[list[int], list[Row]]:
        """Returns the ids of the oldest arrivals, and the rows of those that are still there."""
        rows = await self._session.ask("arrivals", limit=limit)
        return [row[0] for row in rows], [named_row(row) for row in rows if row[1] is not None]

    async def put_arrivals(self, epoch: int, term: int, ids: Sequence[int]) -> None:
        async with self._session.fenced(epoch, term):
            await self._session.connection.execute(sql("put_arrivals"), {"ids": list(ids)})

    async def delete_arrivals(self, epoch: int, term: int, ids: Sequence[int]) -> None:
        async with self._session.fenced(epoch, term):
            await self._session.connection.execute(sql("delete_arrivals"), {"ids": list(ids)})

    async def _topic_id(self, topic: str) -> int:
        return (await self._session.store.topic_ids([topic]))[topic]


def _page(rows: Sequence[Any], limit: int, shape: Callable[[Any], Row], bound: Callable[[Any], B], end: B) -> tuple[list[Row], B]:
    """Cuts a page at its limit, or before the first row that came without its payload; says where the next one
    begins.
    """
    for n, row in enumerate(rows):
        if n == limit or row[PAYLOAD] is None:
            return [shape(row) for row in rows[:n]], bound(row)
    return [shape(row) for row in rows], end
