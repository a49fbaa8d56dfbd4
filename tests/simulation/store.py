"""The real SQL in a real PostgreSQL, called synchronously: a statement, or a transaction, is one moment. Its now() is
the simulation's.

Of two transactions none ever waits for the other: READ COMMITTED between statements is not simulated. Sessions are real
ones, lent; so is the leader's advisory lock. A session whose client is cut off lingers, and its lock with it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg

from mqueue.broker.faults import StoreLost
from mqueue.broker.store.circuit import Circuit
from mqueue.broker.store.migrate import migrate
from mqueue.broker.store.queries import sql
from mqueue.broker.store.shard import POOLS, ShardStore, connect_args, session_settings
from mqueue.clock import SystemClock

from .link import Link, Server

NOW = (b"clock_timestamp()", b"now()")
TIMELINE = b"('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
TABLES = (
    "refused",
    "cancel_request",
    "schedule",
    "arrival",
    "orphan",
    "idempotency",
    "lease",
    "message",
    "dead_letter",
    "result",
    "topic",
    "broker",
    "shard",
    "slot",
)


class LoopClock(SystemClock):
    """Of the loop that runs."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Postgres(Server):
    """The server. `written`: told after each statement or transaction that may have changed something."""

    def __init__(self, url: str, wall_us: Callable[[], int]) -> None:
        super().__init__("postgres", psycopg.OperationalError)
        self.url = url
        self._wall_us = wall_us
        migrate(url)
        self._idle: list[psycopg.Connection[Any]] = []
        self.lent: list[Connection] = []
        self.own = self._connect()
        self.own.execute("ALTER TABLE broker ALTER seen_at SET DEFAULT to_timestamp(0)")
        self.timeline = 1
        self.life = 0  # a server that has gone back was started since
        self.amid = False  # a transaction: nothing waits until its end
        self.written: Callable[[], object] = lambda: None

    def _connect(self) -> psycopg.Connection[Any]:
        session = psycopg.connect(self.url, **connect_args("leader"))
        session.execute(sql("session"), session_settings("leader"))
        session.execute("SET synchronous_commit = off")
        return session

    def begin(self, wall_us: Callable[[], int]) -> None:
        self.restart()
        self._wall_us, self.timeline, self.up, self.written = wall_us, 1, True, lambda: None
        self.life = 0
        with self.own.transaction():
            for table in TABLES:
                self.own.execute(f"DELETE FROM {table}".encode())
            self.own.execute("UPDATE tick SET clock_us = 0, ticked_at = NULL")
            for sequence in ("lease_number", "topic_id_seq", "cold_clock"):
                self.own.execute(f"ALTER SEQUENCE {sequence} RESTART".encode())

    def close(self) -> None:
        self.restart()
        for session in (self.own, *self._idle):
            session.close()

    def restart(self) -> None:
        for connection in list(self.lent):
            connection.end()

    def snapshot(self) -> dict[str, bytes]:
        """Returns all that it has."""
        copies = {}
        for table in (*TABLES, "tick"):
            with self.own.cursor() as cursor, cursor.copy(f"COPY {table} TO STDOUT".encode()) as copy:
                copies[table] = b"".join(bytes(part) for part in copy)
        return copies

    def go_back(self, copies: dict[str, bytes]) -> None:
        """Becomes what it was then, its timeline as it is: what was committed since is forgotten."""
        self.restart()
        self.life += 1
        with self.own.transaction():
            for table in ("tick", *TABLES):
                self.own.execute(f"DELETE FROM {table}".encode())
            for table in reversed((*TABLES, "tick")):
                with self.own.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                    copy.write(copies[table])

    def borrow(self) -> psycopg.Connection[Any]:
        return self._idle.pop() if self._idle else self._connect()

    def give_back(self, session: psycopg.Connection[Any], locked: bool) -> None:
        if session.closed:
            return
        if locked:
            try:
                session.execute("SELECT pg_advisory_unlock_all()")
            except psycopg.Error:  # ended by `unseat`
                session.close()
                return
        self._idle.append(session)

    def until_unlocked(self, key: int) -> None:
        """A session that was ended ends within real milliseconds."""
        while self.own.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s::oid", (key,)).fetchall():
            pass

    def told(self, query: bytes) -> bytes:
        """The statement with the simulation's time in it."""
        query = query.replace(b"pg_postmaster_start_time()", b"to_timestamp(%d)" % self.life)
        for now in NOW:
            query = query.replace(now, b"to_timestamp(%.6f)" % (self._wall_us() / 1e6))
        return query.replace(TIMELINE, b"%d" % self.timeline)


class Connection:
    """What the store uses of psycopg's asyncio connection, on a synchronous one."""

    def __init__(self, server: Postgres, link: Link, rng: random.Random) -> None:
        self._server = server
        self._link = link
        self._rng = rng
        self._session = server.borrow()
        self._ended = False  # the server's side
        self._broken = False  # ours
        server.lent.append(self)

    @property
    def closed(self) -> bool:
        return self._broken or self._ended or self._session.closed

    async def execute(self, query: bytes, params: Any = None, *, binary: bool = False) -> "Cursor":
        if self._server.amid:
            if self._link.flaky and self._rng.random() < self._link.flaky / 4:
                raise psycopg.OperationalError("lost amid a transaction")
            return self._run(query, params, binary)
        name = query.split(b":", 1)[0].removeprefix(b"-- ").decode()
        with self._breaking():
            async with self._link.call(name):
                cursor = self._run(query, params, binary)
                if name not in ("shard_row", "brokers", "heartbeat", "try_lock", "schedule_is_due", "fence_stands"):
                    self._server.written()
        return cursor

    def _run(self, query: bytes, params: Any, binary: bool) -> "Cursor":
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        cursor = self._session.execute(self._server.told(query), params, binary=binary)
        if query == sql("unseat") and cursor.rowcount:
            self._server.until_unlocked(params["key"])
        return Cursor(cursor)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        with self._breaking():
            async with self._link.call("transaction"):
                if self.closed:
                    raise psycopg.OperationalError("the connection is closed")
                with self._session.transaction():
                    self._server.amid = True
                    try:
                        yield
                    finally:
                        self._server.amid = False
                self._server.written()

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """A connection on which something got lost is of no use."""
        if self._broken:
            raise psycopg.OperationalError("the connection is lost")
        try:
            yield
        except psycopg.OperationalError:
            self.lose()
            raise

    @asynccontextmanager
    async def cursor(self) -> AsyncIterator["Cursor"]:
        with self._session.cursor() as cursor:
            yield Cursor(cursor)

    async def close(self) -> None:
        self.end()

    def lose(self) -> None:
        """The client's end is gone; the server notices at once, or much later."""
        if not self._broken:
            self._broken = True
            linger = self._rng.choice([0.0, self._rng.random() * 12]) if self._link.cut != "reset" and self._server.up else 0.0
            asyncio.get_running_loop().call_later(linger, self.end)

    def end(self) -> None:
        """The server's end is gone, and its locks."""
        if not self._ended:
            self._ended = True
            self._server.lent.remove(self)
            self._server.give_back(self._session, True)


class Cursor:
    def __init__(self, real: Any) -> None:
        self._real = real

    @property
    def description(self) -> Any:
        return self._real.description

    async def fetchall(self) -> Any:
        return self._real.fetchall()

    @asynccontextmanager
    async def copy(self, statement: bytes) -> AsyncIterator["Copy"]:
        with self._real.copy(statement) as copy:
            yield Copy(copy)


class Copy:
    def __init__(self, real: Any) -> None:
        self._real = real

    async def write(self, data: bytes) -> None:
        self._real.write(data)


class Pool:
    """A connection for each use."""

    def __init__(self, server: Postgres, link: Link, rng: random.Random) -> None:
        self._server, self._link, self._rng = server, link, rng

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        connection = Connection(self._server, self._link, self._rng)
        try:
            yield connection
        finally:
            connection.end()

    async def open(self, wait: bool) -> None: ...

    async def wait(self, timeout: float) -> None: ...

    async def close(self, timeout: float) -> None: ...


class SimStore(ShardStore):
    def __init__(self, number: int, server: Postgres, link: Link, rng: random.Random) -> None:
        super().__init__(number, server.url)
        self._server, self._link, self._rng = server, link, rng
        self._pools: Any = dict.fromkeys(POOLS, Pool(server, link, rng))
        self.circuit = Circuit(LoopClock())

    async def connect(self, kind: str = "leader") -> Any:
        try:
            async with self._link.call("connect"):
                connection = Connection(self._server, self._link, self._rng)
        except psycopg.Error as error:
            raise StoreLost(str(error)) from error
        return connection
