"""A flush of the leader writes one batch, in one transaction that may be repeated."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection

from mqueue.broker import failpoints
from mqueue.broker.faults import Forgotten, RowExists, RowRefused
from mqueue.broker.format.record import Record
from mqueue.broker.store import aside, write
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.queries import sql
from mqueue.broker.store.rows import Key
from mqueue.broker.store.write import END_OF_STATE, Ledger


@dataclass(slots=True)
class Gone:
    """A message that ended while PostgreSQL may have its row. `first`: the least dirty number that touched it;
    `had_row`: for certain.
    """

    id: int
    version: int
    state: bytes
    topic: str
    first: int
    had_row: bool = False


@dataclass(slots=True)
class FlushBatch:
    """What one flush writes. `first`: its first dirty number: those before were flushed. `tallies`: (dirty number,
    topic, state, count) of messages that began and ended without a row.
    """

    number: int = 0
    first: int = 0
    clock: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    fresh: list[tuple[Record, bytes | None, bytes]] = field(default_factory=list)
    again: list[tuple[Record, bytes | None, bytes]] = field(default_factory=list)
    dead: list[tuple[Record, bytes | None, bytes]] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    tallies: list[tuple[int, str, bytes, int]] = field(default_factory=list)
    mirrors: bool = False  # may PostgreSQL know leases of these messages?
    keys: list[Key] = field(default_factory=list)

    def topics(self) -> set[str]:
        named = {r.topic for rows in (self.fresh, self.again, self.dead) for r, _, _ in rows}
        return named | {gone.topic for gone in self.gone} | {topic for _, topic, _, _ in self.tallies}

    def known(self) -> list[tuple[int, int]]:
        """Returns id and version of those of which PostgreSQL may have something."""
        return [(r.id, r.version) for rows in (self.again, self.dead) for r, _, _ in rows] + [(g.id, g.version) for g in self.gone]


class FlushStore:
    def __init__(self, session: LeaderSession) -> None:
        self._session = session

    async def write(self, epoch: int, term: int, batch: FlushBatch) -> int:
        """One transaction writes rows, ends, dead letters, keys, ledger, positions, N and clock. It is repeatable.
        Returns how many rows PostgreSQL has refused: they are set aside. Raises Forgotten where PostgreSQL lacks a
        flush before this one: it has gone back.
        """
        named = batch.topics()
        ids = await self._session.topic_ids(named) if named else {}
        try:
            return await self._write(epoch, term, batch, ids)
        except (RowExists, RowRefused) as refused:
            # a row that PostgreSQL has although Redis never flushed it (replayed meanwhile): by version, then
            batch.again += batch.fresh
            batch.fresh = []
            if isinstance(refused, RowExists):
                with suppress(RowExists, RowRefused):  # another unique index may refuse it, too
                    return await self._write(epoch, term, batch, ids)
            return await self._write(epoch, term, batch, ids, careful=True)

    async def _write(self, epoch: int, term: int, batch: FlushBatch, ids: dict[str, int], *, careful: bool = False) -> int:
        """Writes it. `careful`: in parts, so that a row that is refused keeps none of the others from PostgreSQL."""
        connection, ledger, refused = self._session.connection, Ledger(), 0

        async def again(rows: Sequence[tuple[Record, bytes | None, bytes]]) -> None:
            await write.write_again(connection, rows, ids, ledger)

        async def bury(rows: Sequence[tuple[Record, bytes | None, bytes]]) -> None:
            await write.bury(connection, rows, ids, ledger, batch.clock)

        async with self._session.fenced(epoch, term, moves=True) as flushed:
            if flushed + 1 < batch.first:  # N and the positions would move on past what only the logs have now
                raise Forgotten
            await failpoints.ahit("flush.before_copy")
            if batch.fresh:
                await write.copy(connection, "copy_message", batch.fresh, ids)
                for topic, count in Counter(r.topic for r, _, _ in batch.fresh).items():
                    ledger.add(ids[topic], "enqueued", count)
            taken = await aside.take_back(connection, batch.known(), ledger)
            for rows, put in ((batch.again, again), (batch.dead, bury)):
                if careful:
                    refused += await aside.by_parts(connection, rows, put, aside.Aside(connection, ids, ledger).row)
                else:
                    await put(rows)
            await _end(connection, batch.gone, taken, flushed, ids, ledger)
            if batch.mirrors:
                await connection.execute(sql("delete_leases"), {"ids": [id for id, _ in batch.known()]})
            for number, topic, state, count in batch.tallies:
                if number > flushed:
                    ledger.add(ids[topic], "enqueued", count)
                    ledger.add(ids[topic], END_OF_STATE[state], count)
            if batch.keys:
                await write.keep_keys(connection, batch.keys)
            await write.write_ledger(connection, ledger)
            await write.move_positions(connection, batch.positions)
            await connection.execute(sql("move_shard"), {"number": batch.number, "clock": batch.clock})
            await failpoints.ahit("flush.before_commit")
        await failpoints.ahit("flush.after_commit")
        return refused


async def _end(
    connection: AsyncConnection[Any], gone: Sequence[Gone], taken: set[int], flushed: int, ids: dict[str, int], ledger: Ledger
) -> None:
    if not gone:
        return
    deleted = await write.delete_messages(connection, [(g.id, g.version) for g in gone])
    for g in gone:
        if g.id in deleted:
            ledger.add(ids[g.topic], END_OF_STATE[g.state])
        elif g.id in taken or (g.first > flushed and not g.had_row):  # it was set aside, or never had one
            ledger.add(ids[g.topic], "enqueued")
            ledger.add(ids[g.topic], END_OF_STATE[g.state])
