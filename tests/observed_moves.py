"""Watches the states of all messages while a test drives a shard: each change must be a move that a script or statement
which ran meanwhile names in its header.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from psycopg import AsyncConnection
from stores import NUMBER, World

from mqueue.broker.cache import keys
from mqueue.lifecycle import GONE, State
from tests.moves import moves_of, reachable

ROWS = "SELECT id, false FROM message UNION ALL SELECT id, true FROM dead_letter"


class Watch:
    """`seen`: the moves that were needed to explain what was observed, as (from, to)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ran: set[str] = set()
        self._known: dict[int, State] = {}
        self.seen: Counter[tuple[State, State]] = Counter()

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """While it lasts, it is told what runs."""
        run_script, run_statement = self._world.cache._run, AsyncConnection.execute

        async def script(name: str, *args: Any, **options: Any) -> Any:
            self._ran.add(f"{name}.lua")
            return await run_script(name, *args, **options)

        async def statement(connection: Any, query: Any, *args: Any, **options: Any) -> Any:
            if isinstance(query, bytes):
                self._ran.add(query.split(b":", 1)[0].removeprefix(b"-- ").decode() + ".sql")
            return await run_statement(connection, query, *args, **options)

        with patch.object(self._world.cache, "_run", script), patch.object(AsyncConnection, "execute", statement):
            yield

    async def begin(self) -> None:
        self._known = await self._states()
        self._ran = set()

    async def look(self) -> None:
        """Compares with the last look."""
        ran = {name for name in self._ran if moves_of().get(name)}
        self._ran = set()
        if not ran:
            return
        before, self._known = self._known, await self._states()
        self._ran = set()  # the look itself
        for id in before.keys() | self._known.keys():
            self._compare(id, before.get(id), self._known.get(id), ran)

    def _compare(self, id: int, was: State | None, now: State | None, ran: Iterable[str]) -> None:
        """What nobody knows any more has ended. An epoch that is lost may take back what was not logged: what comes of
        that the machine's own model judges.
        """
        lost = "clear.lua" in ran
        if was == now or (lost and (was is None or was in GONE or was == State.DEAD or now is None)):
            return
        may = reachable(State.UNPLACED if was is None else was, ran)
        told = f"message {id}: {was} became {now}, which none of {sorted(ran)} may do"
        if now is None:
            assert was in GONE | {State.DEAD} or may & GONE, told
        else:
            assert now in may, told
        if now is not None:
            self.seen[was or State.UNPLACED, now] += 1

    async def _states(self) -> dict[int, State]:
        """Of all messages that are there: by their record, or by their row where they have none."""
        rows = await (await self._world.connection.execute(ROWS)).fetchall()
        records = await self._world.cache._redis.hgetall(keys.record(NUMBER))
        by_row = {id: State.DEAD if dead else State.UNPLACED for id, dead in rows}
        return by_row | {int.from_bytes(id): State(data[:1]) for id, data in records.items()}
