"""The leader reads pages of rows for Redis here, in the order Redis wants them, and the arrivals
that it places there.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from mqueue.broker.format import record
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.queries import sql
from mqueue.broker.store.rows import PAYLOAD, Row, message_row, named_row

REFILL_COLUMNS = ("namespaces", "names", "priorities", "ranks", "dues", "ids", "limits")
KEY_COLUMNS = ("priority", "rank", "due", "id")
FIRST_PARTS = (-(2**31), 0, 0, 0)  # of a key below all others, and above
LAST_PARTS = (2**31 - 1, 2**31 - 1, 2**63 - 1, 2**63 - 1)

B = TypeVar("B")


class PageStore:
    """A page is one statement; announcing and deleting arrivals is one fenced transaction each."""

    def __init__(self, session: LeaderSession) -> None:
        self._session = session

    async def refill(
        self, topics: Mapping[str, tuple[bytes, int]], now: int, t_due: int, t_id: int, limit: int, size: int
    ) -> list[tuple[str, list[Row], bytes]]:
        """Reads of each topic the rows at or above its frontier that are due, in key order: at most `limit` rows and
        `size` bytes of them all. `topics`: by name the frontier, and how many rows there is room for. Returns them with
        the first key left out.
        """
        columns: dict[str, list[Any]] = {name: [] for name in REFILL_COLUMNS}
        share = max(1, limit // len(topics))
        for topic, (frontier, room) in topics.items():
            begin = record.key_parts(frontier) if frontier else FIRST_PARTS
            row = (*topic.split("/", 1), *begin, max(1, min(share, room)) + 1)
            for name, value in zip(REFILL_COLUMNS, row, strict=True):
                columns[name].append(value)
        found: dict[int, list[Any]] = {}
        for row in await self._session.ask("refill_pages", now=now, t_due=t_due, t_id=t_id, bytes=size, **columns):
            found.setdefault(row[1], []).append((row[0], *row[2:]))
        pages = []
        for nth, (topic, most) in enumerate(zip(topics, columns["limits"], strict=True), start=1):
            rows, left_out = _page(found.get(nth, ()), most - 1, partial(message_row, topic), _key_of, record.LAST)
            pages.append((topic, rows, left_out))
        return pages

    async def due(self, due: int, id: int, until: int, limit: int, size: int) -> tuple[list[Row], tuple[int, int]]:
        """Reads rows due from (due, id) up to `until`. Returns them, and how far this page reaches."""
        rows = await self._session.ask("time_page", due=due, id=id, until=until, limit=limit + 1, bytes=size)
        shaped = [(row[0], *row[2:], row[1]) for row in rows]
        return _page(shaped, limit, lambda row: message_row(row[-1], row), lambda r: (r[3], r[0]), (until, 0))

    async def overdue(self, topic: str, after: bytes, frontier: bytes, before: int, limit: int) -> tuple[list[bytes], bytes]:
        """Returns the keys of rows of one priority, above `after` and below the frontier, that were due before then
        (µs), and the key after which to go on: FIRST where the topic has no more.

        What is due later is not read, however much it is: in a priority it comes last.
        """
        if (topic_id := await self._topic_id(topic)) is None:
            return [], record.FIRST
        begin = dict(zip(KEY_COLUMNS, record.key_parts(after) if after else FIRST_PARTS, strict=True))
        below = record.key_parts(frontier) if frontier != record.LAST else LAST_PARTS
        end = dict(zip((f"to_{column}" for column in KEY_COLUMNS), below, strict=True))
        rows = await self._session.ask("overdue_page", topic_id=topic_id, **begin, **end, before=before, limit=limit)
        keys = [record.key(*row) for row in rows]
        if len(keys) == limit:
            return keys, keys[-1]
        following = await self._session.ask("next_priority", topic_id=topic_id, priority=begin["priority"], rank=begin["rank"], **end)
        return keys, record.key(following[0][0], following[0][1], 0, 0) if following else record.FIRST

    async def arrivals(self, after: int, limit: int) -> tuple[list[int], list[Row]]:
        """Returns the ids of arrivals above `after`, and the rows of those that are still there."""
        rows = await self._session.ask("arrivals", after=after, limit=limit)
        return [row[0] for row in rows], [named_row(row) for row in rows if row[1] is not None]

    async def existing(self, ids: Sequence[int]) -> set[int]:
        """Returns those of which there is a row, alive or dead."""
        return {id for id, _ in await self._session.ask("existing", ids=list(ids))}

    async def put_arrivals(self, epoch: int, term: int, ids: Sequence[int]) -> None:
        async with self._session.fenced(epoch, term):
            await self._session.connection.execute(sql("put_arrivals"), {"ids": list(ids)})

    async def delete_arrivals(self, epoch: int, term: int, ids: Sequence[int]) -> None:
        async with self._session.fenced(epoch, term):
            await self._session.connection.execute(sql("delete_arrivals"), {"ids": list(ids)})

    async def _topic_id(self, topic: str) -> int | None:
        """Returns its id; None: PostgreSQL has never had a message of it. To ask makes no topic."""
        namespace, _, name = topic.partition("/")
        rows = await self._session.ask("topic_ids", namespaces=[namespace], names=[name])
        return int(rows[0][0]) if rows else None


def _key_of(row: Sequence[Any]) -> bytes:
    return record.key(row[1], row[2], row[3], row[0])


def _page(rows: Sequence[Any], limit: int, shape: Callable[[Any], Row], bound: Callable[[Any], B], end: B) -> tuple[list[Row], B]:
    """Cuts a page at its limit, or before the first row that came without its payload; says where the next one
    begins.
    """
    for n, row in enumerate(rows):
        if n == limit or row[PAYLOAD] is None:
            return [shape(row) for row in rows[:n]], bound(row)
    return [shape(row) for row in rows], end
