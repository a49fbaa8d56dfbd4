"""What a leader does in its shard's PostgreSQL, on the connection that holds its lock: election, fenced transactions,
flush, pages.

Raises StoreLost where no answer came (what was asked may have happened), Deposed where the fence says that another
epoch or term stands.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from mqueue.broker import failpoints
from mqueue.broker.faults import Deposed, StoreLost
from mqueue.broker.format import record
from mqueue.broker.store import write
from mqueue.broker.store.queries import sql
from mqueue.broker.store.rows import Row, leased_row, message_row
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.store.write import END_OF_STATE, FlushBatch, Ledger

LEADER_LOCK = 0x6D71_1EAD
KEY_COLUMNS = ("priority", "rank", "due", "id")
FIRST_PARTS = (-(2**31), 0, 0, 0)  # of a key below all others, and above
LAST_PARTS = (2**31 - 1, 2**31 - 1, 2**63 - 1, 2**63 - 1)

B = TypeVar("B")


class LeaderStore:
    """`connection`: holds the leader's lock, or tries to."""

    def __init__(self, store: ShardStore, connection: AsyncConnection[Any]) -> None:
        self._store = store
        self.connection = connection

    # -- election, epochs, fence ---------------------------------------------------------------------------------------

    async def try_lock(self) -> bool:
        return bool((await self.ask("try_lock", key=LEADER_LOCK + self._store.number))[0][0])

    async def unseat(self, node: int, silent_s: float) -> bool:
        """Ends the leader's session where its broker has been silent for so long, or is this one; True if it was
        one.
        """
        return bool(await self.ask("unseat", key=LEADER_LOCK + self._store.number, node=node, silent_s=silent_s))

    async def raise_term(self, floor: int, node: int) -> int:
        return int((await self.ask("raise_term", floor=floor, node=node))[0][0])

    async def raise_epoch(self, term: int, floor: int) -> int:
        rows = await self.ask("raise_epoch", term=term, floor=floor)
        if not rows:
            raise Deposed(f"term {term} is over")
        return int(rows[0][0])

    async def open_shard(self, epoch: int, term: int, mode: str, run_id: str, timeline: int, clock: int = 0) -> None:
        if not await self.ask("open_shard", epoch=epoch, term=term, mode=mode, run_id=run_id, timeline=timeline, clock=clock):
            raise Deposed(f"epoch {epoch}, term {term} is over")

    async def ask(self, name: str, **args: Any) -> list[Any]:
        """The rows of one statement, outside a transaction of a daemon."""
        try:
            cursor = await self.connection.execute(sql(name), args, binary=True)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise StoreLost(f"PostgreSQL of shard {self._store.number}, {name}: {error}") from error

    @asynccontextmanager
    async def fenced(self, epoch: int, term: int, *, moves: bool = False) -> AsyncIterator[int]:
        """A daemon's transaction: begins by locking the shard row on its epoch and term. Yields N, the last dirty
        number flushed.

        `moves`: it will change that row.
        """
        try:
            async with self.connection.transaction():
                fence = sql("fence_move" if moves else "fence")
                rows = await (await self.connection.execute(fence, {"epoch": epoch, "term": term}, binary=True)).fetchall()
                if not rows:
                    raise Deposed(f"epoch {epoch}, term {term} is over")
                yield rows[0][0]
        except UniqueViolation:
            raise
        except psycopg.Error as error:
            raise StoreLost(f"PostgreSQL of shard {self._store.number}: {error}") from error

    # -- pages ---------------------------------------------------------------------------------------------------------

    async def refill_page(
        self,
        topic: str,
        frontier: bytes,
        now: int,
        t_due: int,
        t_id: int,
        limit: int,
        size: int,
    ) -> tuple[list[Row], bytes]:
        """Rows at or above the frontier that are due, in key order, at most `limit` rows and `size` bytes; and the
        first key left out.
        """
        topic_id = (await self._store.topic_ids([topic]))[topic]
        priority, rank, due, id = record.key_parts(frontier) if frontier else FIRST_PARTS
        args = {
            "topic_id": topic_id,
            "priority": priority,
            "rank": rank,
            "due": due,
            "id": id,
            "now": now,
            "t_due": t_due,
            "t_id": t_id,
        }
        rows = await self.ask("refill_page", **args, limit=limit + 1, bytes=size)
        return _page(rows, limit, lambda row: message_row(topic, row), lambda r: record.key(r[1], r[2], r[3], r[0]), record.LAST)

    async def time_page(self, due: int, id: int, until: int, limit: int, size: int) -> tuple[list[Row], tuple[int, int]]:
        """Rows due from (due, id) up to `until`, and how far this page reaches."""
        rows = await self.ask("time_page", due=due, id=id, until=until, limit=limit + 1, bytes=size)
        shaped = [(row[0], *row[2:], row[1]) for row in rows]
        return _page(shaped, limit, lambda row: message_row(row[-1], row), lambda r: (r[3], r[0]), (until, 0))

    async def arrivals(self, limit: int) -> tuple[list[int], list[Row]]:
        """Ids of the oldest arrivals, and the rows of those that are still there."""
        rows = await self.ask("arrivals", limit=limit)
        return [row[0] for row in rows], [message_row(row[1], (row[0], *row[2:])) for row in rows if row[1] is not None]

    async def put_arrivals(self, ids: Sequence[int]) -> None:
        await self.connection.execute(sql("put_arrivals"), {"ids": list(ids)})

    async def delete_arrivals(self, ids: Sequence[int]) -> None:
        await self.connection.execute(sql("delete_arrivals"), {"ids": list(ids)})

    async def expired_page(self, now: int, after: tuple[int, int], limit: int) -> list[tuple[int, int, int]]:
        """Id, version, expiry of rows past their TTL, beyond (expiry, id)."""
        expires, id = after
        return await self.ask("expired_page", now=now, expires=expires, id=id, limit=limit)

    async def prune_keys(self, now: int, limit: int) -> int:
        """Returns how many went."""
        return len(await self.ask("prune_keys", now=now, limit=limit))

    async def cancel_requested(self, now: int) -> None:
        """What was to be cancelled while it ran, and runs no more, ends; in the transaction that opens an epoch."""
        ledger = Ledger()
        for (topic_id,) in await self.ask("cancel_requested", now=now):
            ledger.add(topic_id, "cancelled")
        await write.write_ledger(self.connection, ledger)

    async def prune_cancel_requests(self, age_s: float, limit: int) -> int:
        """Returns how many went."""
        return len(await self.ask("prune_cancel_requests", age_s=age_s, limit=limit))

    async def prune_results(self, limit: int) -> int:
        """Returns how many went."""
        return len(await self.ask("prune_results", limit=limit))

    async def prune_workers(self, unheard_s: float) -> None:
        await self.ask("prune_workers", unheard=unheard_s)

    async def overdue_page(self, topic: str, after: bytes, frontier: bytes, before: int, limit: int) -> list[bytes]:
        """Keys of rows above `after` and below the frontier that were due before then (µs)."""
        topic_id = (await self._store.topic_ids([topic]))[topic]
        begin = record.key_parts(after) if after else FIRST_PARTS
        end = record.key_parts(frontier) if frontier != record.LAST else LAST_PARTS
        args = dict(zip((*KEY_COLUMNS, *(f"to_{column}" for column in KEY_COLUMNS)), (*begin, *end), strict=True))
        rows = await self.ask("overdue_page", topic_id=topic_id, **args, before=before, limit=limit)
        return [record.key(*row) for row in rows]

    async def mirror_leases(self, leases: Sequence[tuple[int, int, int, int]]) -> None:
        """Id, epoch, number, end of the leases that are to be known: these and no others."""
        ids, epochs, numbers, untils = (list(column) for column in zip(*leases, strict=True)) if leases else ([], [], [], [])
        await self.connection.execute(sql("drop_mirrors"), {"ids": ids})
        await self.connection.execute(sql("mirror_leases"), {"ids": ids, "epochs": epochs, "numbers": numbers, "untils": untils})

    async def live_leases(self, after: int, limit: int, now: int) -> list[tuple[int, bytes, bytes]]:
        """Messages whose lease still runs: id, leased record, body; by id, above `after`."""
        rows = await self.ask("live_leases", after=after, limit=limit, now=now)
        return [(row[0], *leased_row(row[:17], *row[17:])) for row in rows]

    async def request_keys(self, now: int, limit: int) -> list[tuple[bytes, bytes]]:
        """Key hash and key record (as record.IDEMPOTENCY packs it, with the ids) of whole requests that were enqueued
        past Redis.
        """
        rows = await self.ask("request_keys", now=now, limit=limit)
        return [(h, record.IDEMPOTENCY.pack(id, body, 0, 0, expires, 1, b"r") + ids) for h, body, id, expires, ids in rows]

    # -- flush ---------------------------------------------------------------------------------------------------------

    async def flush(self, epoch: int, term: int, batch: FlushBatch) -> None:
        """One transaction: rows, ends, dead letters, keys, ledger, positions, N and clock. Repeatable."""
        named = {r.topic for rows in (batch.fresh, batch.again, batch.dead) for r, _, _ in rows}
        named |= {gone.topic for gone in batch.gone} | {topic for _, topic, _, _ in batch.tallies}
        ids = await self._store.topic_ids(named) if named else {}
        try:
            await self._flush(epoch, term, batch, ids)
        except UniqueViolation:  # a row that PostgreSQL has although Redis never flushed it (replayed meanwhile): by version, then
            batch.again += batch.fresh
            batch.fresh = []
            await self._flush(epoch, term, batch, ids)

    async def _flush(self, epoch: int, term: int, batch: FlushBatch, ids: dict[str, int]) -> None:
        ledger = Ledger()
        async with self.fenced(epoch, term, moves=True) as flushed:
            await failpoints.ahit("flush.before_copy")
            if batch.fresh:
                await write.copy(self.connection, "copy_message", batch.fresh, ids)
                for topic, count in Counter(r.topic for r, _, _ in batch.fresh).items():
                    ledger.add(ids[topic], "enqueued", count)
            await write.write_again(self.connection, batch.again, ids, ledger)
            await write.bury(self.connection, batch.dead, ids, ledger, batch.clock)
            await write.end(self.connection, batch.gone, flushed, ids, ledger)
            if batch.mirrors:
                ended = [r.id for rows in (batch.again, batch.dead) for r, _, _ in rows] + [gone.id for gone in batch.gone]
                await self.connection.execute(sql("delete_leases"), {"ids": ended})
            for number, topic, state, count in batch.tallies:
                if number > flushed:
                    ledger.add(ids[topic], "enqueued", count)
                    ledger.add(ids[topic], END_OF_STATE[state], count)
            if batch.keys:
                await write.keep_keys(self.connection, batch.keys)
            await write.write_ledger(self.connection, ledger)
            await write.move_positions(self.connection, batch.positions)
            await self.connection.execute(sql("move_shard"), {"number": batch.number, "clock": batch.clock})
            await failpoints.ahit("flush.before_commit")
        await failpoints.ahit("flush.after_commit")


def _page(rows: Sequence[Any], limit: int, shape: Callable[[Any], Row], bound: Callable[[Any], B], end: B) -> tuple[list[Row], B]:
    """Cuts a page at its limit, or before the first row that came without its payload; says where the next one
    begins.
    """
    for n, row in enumerate(rows):
        if n == limit or row[12] is None:
            return [shape(row) for row in rows[:n]], bound(row)
    return [shape(row) for row in rows], end
