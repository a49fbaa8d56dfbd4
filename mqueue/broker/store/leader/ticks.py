"""The ticks of schedules are enqueued in one transaction of the leader.

Exactly one enqueue for each tick follows from that transaction: rows, ledger and the schedule's next tick become true
together or not at all, behind the fence of epoch and term. Where the answer to its COMMIT is lost, the next leader
reads which of the two it was.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mqueue.broker import failpoints
from mqueue.broker.format import record
from mqueue.broker.format.record import Record
from mqueue.broker.store import aside, write
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.queries import fetch, sql
from mqueue.broker.store.rows import Row
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


class TickStore:
    def __init__(self, session: LeaderSession) -> None:
        self._session = session

    async def is_due(self, wall_us: int) -> bool:
        """Has a tick come? `wall_us`: by this broker's wall clock."""
        return bool((await self._session.ask("schedule_is_due", now=wall_us))[0][0])

    async def enqueue(
        self,
        epoch: int,
        term: int,
        wall_us: Callable[[], int],
        limit: int,
        decide: Callable[[Sequence[Schedule], int], list[Ticked]],
        *,
        announce: bool,
        stamp_us: int,
    ) -> tuple[list[Ticked], int]:
        """Holds up to `limit` schedules whose next tick has come, writes what `decide` makes of them, and returns it;
        and how many of the messages PostgreSQL has refused: they are set aside, and the schedules go on.

        `wall_us`: this broker's wall clock, read behind the fence. `decide`: given the schedules, and the time by which
        they are due. `announce`: Redis serves, and the leader must place the messages. `stamp_us`: when they came, by
        the shard clock.
        """
        async with self._session.fenced(epoch, term, moves=announce):
            now_us = wall_us()
            due = await fetch(self._session.connection, "due_schedules", now=now_us, limit=limit)
            ticked = decide([Schedule(*row[:-1]) for row in due], due[0][-1] if due else now_us)
            refused = await self._write(ticked, announce, stamp_us)
        return ticked, refused

    async def _write(self, ticked: Sequence[Ticked], announce: bool, stamp_us: int) -> int:
        connection = self._session.connection
        rows = [(record.unpack(data), None, body) for t in ticked for data, body in t.rows]
        refused = 0
        await failpoints.ahit("schedule.before_insert")
        if rows:
            ids = await self._session.topic_ids(r.topic for r, _, _ in rows)
            ledger = Ledger()

            async def put(some: Sequence[tuple[Record, bytes | None, bytes]]) -> None:
                await write.copy(connection, "copy_message", some, ids)
                for r, _, _ in some:
                    ledger.add(ids[r.topic], "enqueued")

            refused = await aside.by_parts(connection, rows, put, aside.Aside(connection, ids, ledger).row)
            await write.lock_and_write_ledger(connection, ledger)
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
        return refused
