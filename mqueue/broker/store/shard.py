"""A ShardStore is one shard's PostgreSQL, the durable truth: what any broker asks, from pools by kind of work. What a
leader does: `leader/`.

Raises StoreLost where no answer came: what was asked may have happened.
"""

import asyncio
import select
import socket
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import InterfaceError, LockNotAvailable, OperationalError, QueryCanceled, UniqueViolation
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from mqueue.broker.faults import NodeTaken, NoNodeFree, RowRefused, StoreLost
from mqueue.broker.store.aside import refuses_data
from mqueue.broker.store.circuit import Circuit
from mqueue.broker.store.queries import sql
from mqueue.broker.store.readers import Readers
from mqueue.broker.store.rows import row_to_cancel, unique_rows
from mqueue.broker.store.seats import NODES_MAX, BrokerRow, Registered, Seat, ShardRow
from mqueue.clock import Clock, SystemClock
from mqueue.message import ERROR_WEIGHT, WORKER_UNHEARD_S, WORKERS_BYTES_MAX, WORKERS_MAX, Result, TopicName, WorkerKey, WorkerReport

POOL_WAIT_S = 2.0
OPEN_S = 10.0
CONNECT_S = 2  # to each server of the URL: one that has lost its host never answers, and the next one may have been promoted
CONFIGURE_S = 5.0
# Connections by kind of work, so that none starves another: how the shard is; batches, replays and results, one at a
# time each; what requests ask on their way; what leaders ask beside their own sessions; what users read.
POOLS = {"control": 2, "write": 3, "read": 8, "leader": 2, "user": 4}
CONTROL = frozenset({
    "heartbeat", "shard_row", "brokers", "leave", "create_shard", "register_broker", "create_slot_map", "slot_map", "seat", "safety",
    "longest_silent", "owner",
})  # fmt: skip
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000}  # a dead network is noticed
STATEMENT_MS = {
    "control": 2_000, "write": 15_000, "read": 5_000, "user": 4_000,
    "leader": 30_000, "flush": 15_000, "refill": 5_000, "scan": 5_000, "arrivals": 10_000, "housekeeping": 15_000,  # the leader's lanes
}  # fmt: skip
REGISTER_TRIES = 20
SILENT_NAMED = 3  # where all numbers are taken
UNIQUE_ROWS_MAX = 100  # of the messages under one unique key, that may wait or run: these, the newest, are looked at
IDLE_MS = {"leader": 20_000, "flush": 20_000}  # within a transaction: whoever hangs there holds others up
IDLE_ELSE_MS = 3_000


class ShardStore:
    def __init__(self, number: int, url: str, clock: Clock | None = None) -> None:
        self.number = number
        self.url = url
        self.circuit = Circuit(clock or SystemClock())
        self._pools = {kind: self._pool(kind, size) for kind, size in POOLS.items()}
        self._readers = Readers()
        self._topic_ids: dict[str, int] = {}
        self._life = (0, 0.0)  # the timeline, and the life of the server, in which topics have these ids

    def _pool(self, kind: str, size: int) -> AsyncConnectionPool:
        """Makes a pool. Its pauses between tries double: it soon gives up, and begins anew when it is next asked, so
        that a long outage makes none long.
        """
        return AsyncConnectionPool(
            self.url, min_size=1, max_size=size, timeout=POOL_WAIT_S, reconnect_timeout=POOL_WAIT_S, open=False, kwargs=connect_args(kind),
            name=f"shard-{self.number}-{kind}", check=_check, configure=partial(_configure, kind),
        )  # fmt: skip

    async def open(self) -> None:
        """Returns when it is connected: whoever waits for a pool later waits less long than a server that never answers
        takes.
        """
        try:
            for pool in self._pools.values():
                await pool.open(wait=False)
            for pool in self._pools.values():
                await pool.wait(OPEN_S)
        except PoolTimeout as error:
            raise StoreLost(f"PostgreSQL of shard {self.number}: {error}") from error

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close(timeout=5)

    async def connect(self, kind: str = "leader") -> AsyncConnection[Any]:
        """Opens a connection of the leader's own, outside the pools. `kind`: whose deadlines it has."""
        try:
            connection = await AsyncConnection.connect(self.url, **connect_args(kind))
            await _configure(kind, connection)
            return connection
        except (psycopg.Error, TimeoutError) as error:
            raise StoreLost(f"PostgreSQL of shard {self.number}: {error or 'no session within the time'}") from error

    @asynccontextmanager
    async def _connection(self, kind: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Lends a connection. Where PostgreSQL has failed several times, all but control is refused at once for a
        while.
        """
        if kind != "control" and not self.circuit.allows():
            raise StoreLost(f"PostgreSQL of shard {self.number} has failed: it is tried again in a moment")
        try:
            async with self._pools[kind].connection() as connection:
                yield connection
            self.circuit.succeeded()
        except UniqueViolation:
            raise
        except (psycopg.Error, PoolTimeout) as error:
            away = isinstance(error, OperationalError | InterfaceError) or (isinstance(error, PoolTimeout) and kind not in ("read", "user"))
            if away and not (kind == "user" and isinstance(error, QueryCanceled | LockNotAvailable)):
                # or too slow; else it is what was asked, or how many ask: users read what takes long
                self.circuit.failed()
            raise (RowRefused if refuses_data(error) else StoreLost)(f"PostgreSQL of shard {self.number}: {error}") from error

    @asynccontextmanager
    async def transaction(self, kind: str = "write") -> AsyncIterator[AsyncConnection[Any]]:
        async with self._connection(kind) as connection, connection.transaction():
            yield connection

    async def _all(self, statement: str, /, **args: Any) -> list[Any]:
        async with self._connection(_kind(statement)) as connection:
            return await (await connection.execute(sql(statement), args, binary=True)).fetchall()

    async def _read(self, namespace: str, statement: str, /, **args: Any) -> list[Any]:
        """Asks for what a user looks at, at this namespace's turn. Raises Unavailable where it does not come."""
        async with self._readers.turn(namespace), self._connection("user") as connection:
            return await (await connection.execute(sql(statement), args, binary=True)).fetchall()

    async def _do(self, statement: str, /, **args: Any) -> None:
        async with self._connection(_kind(statement)) as connection:
            await connection.execute(sql(statement), args)

    # -- who is who ----------------------------------------------------------------------------------------------------

    async def create(self, shards: int) -> None:
        await self._do("create_shard", number=self.number, shards=shards)

    async def row(self) -> ShardRow:
        row = ShardRow(*(await self._all("shard_row"))[0])
        life = row.timeline_now, row.server_since
        if life != self._life:  # it may lack topics that were made last, and give their ids to others
            self._life, self._topic_ids = life, {}
        return row

    async def safety(self) -> tuple[bool, bool]:
        """Does the server sync what it commits? Does it write whole pages, so that a torn one can be mended?"""
        [(syncs, whole_pages)] = await self._all("safety")
        return syncs, whole_pages

    async def slot_map(self, shards: int) -> list[int]:
        await self._do("create_slot_map", shards=shards)
        return list((await self._all("slot_map"))[0][0])

    async def register_broker(self, identity: uuid.UUID, node: int | None) -> Registered:
        """Gives this broker its number. Raises NodeTaken where another broker has this number, NoNodeFree where all
        are taken.
        """
        for _ in range(REGISTER_TRIES):
            with suppress(UniqueViolation):
                if rows := await self._all("register_broker", identity=identity, node=node, host=socket.gethostname()):
                    return Registered(*rows[0])
                if node is not None:
                    raise NodeTaken(f"node number {node} belongs to another broker")
            # another one started at the same time, and took that number
        silent = [_silence(*row) for row in await self._all("longest_silent", limit=SILENT_NAMED)]
        raise NoNodeFree(f"shard {self.number}: all {NODES_MAX:,} node numbers are taken; silent for longest: {'; '.join(silent)}")

    async def retire_broker(self, identity: uuid.UUID, last: int, id_floor_ms: int) -> bool:
        """Frees its number if it is flushed up to `last`."""
        return bool(await self._all("retire_broker", identity=identity, last=last, id_floor_ms=id_floor_ms))

    async def owner(self, node: int) -> tuple[uuid.UUID, str, int] | None:
        """Returns whose this node number is: its identity, its host, and the ms since 1970 that its wall clock may tell
        by now. None: nobody's.
        """
        rows = await self._all("owner", node=node)
        return rows[0] if rows else None

    async def seat(self, identity: uuid.UUID) -> Seat | None:
        """Returns the broker's seat; None: it was never here, or its number was freed."""
        rows = await self._all("seat", identity=identity)
        return Seat(*rows[0]) if rows else None

    async def heartbeat(
        self, node: int, replayed: int, term: int, started: int, wall_us: int, reaches: bool = True, known: int = 0
    ) -> tuple[int, int]:
        """Tells that this broker lives. `replayed`: the epoch it has confirmed, in this `term`. `wall_us`: by its own.
        `reaches`: it reaches Redis. `known`: the position it has seen. Returns the present one, and by how many µs its
        clock is ahead of PostgreSQL's.
        """
        args = {"node": node, "replayed": replayed, "term": term, "started": started, "wall_us": wall_us, "reaches": reaches, "known": known}
        [(position, clock_off_us)] = await self._all("heartbeat", **args)
        return position, clock_off_us

    async def leave(self, node: int, *, flushed: bool) -> None:
        """Tells that this broker uses no epoch any more: nobody need wait for it. `flushed`: all of its log is in
        PostgreSQL.
        """
        await self._do("leave", node=node, flushed=flushed)

    async def is_away(self, node: int, epoch: int) -> bool:
        """Was this epoch opened without the replay of this broker, and has it not come since? Then its log may have
        messages that nobody else knows.
        """
        return bool((await self._all("is_away", node=node, epoch=epoch))[0][0])

    async def position(self, node: int) -> int:
        """Returns the last sequence of this broker that is flushed."""
        return next(b.position for b in await self.brokers() if b.node == node)

    async def bury_orphans(self, node: int, started: int) -> None:
        """Deletes what still waits for an enqueue of its former lives, once all is replayed that this broker has: it
        waits in vain.
        """
        await self._do("bury_orphans", node=node, started=started)

    async def brokers(self) -> list[BrokerRow]:
        return [BrokerRow(*row) for row in await self._all("brokers")]

    async def brokers_in(self, connection: AsyncConnection[Any]) -> list[BrokerRow]:
        return [BrokerRow(*row) for row in await (await connection.execute(sql("brokers"), binary=True)).fetchall()]

    # -- what the engine asks ------------------------------------------------------------------------------------------

    async def topic_ids(self, names: Iterable[str], kind: str = "read") -> dict[str, int]:
        """Returns the ids of these topics (`namespace/topic`); makes those that are new. `kind`: of connection."""
        missing = [name for name in set(names) if name not in self._topic_ids]
        if missing:
            halves = [name.split("/", 1) for name in missing]
            args = {"namespaces": [h[0] for h in halves], "names": [h[1] for h in halves]}
            async with self._connection(kind) as connection:
                await connection.execute(sql("ensure_topics"), args)
                found = await (await connection.execute(sql("topic_ids"), args, binary=True)).fetchall()
            for id, namespace, name in found:
                self._topic_ids[f"{namespace}/{name}"] = id
        return self._topic_ids

    async def find_keys(self, key_hashes: Sequence[bytes], now: int) -> list[tuple[bytes, bytes, int, int]]:
        """Returns key hash, body hash, id and expiry µs of those that are known."""
        return await self._all("find_keys", key_hashes=list(key_hashes), now=now)

    async def dead_page(self, name: TopicName, after: int, limit: int, size: int) -> list[Any]:
        """Returns rows by id, and what they weigh with those before; those after `size` bytes are left out."""
        args = {"namespace": name.namespace, "name": name.topic, "after": after, "limit": limit}
        return await self._read(name.namespace, "dead_page", **args, size=size, error_weight=ERROR_WEIGHT)

    async def delete_dead(self, name: TopicName, ids: Sequence[int]) -> set[int]:
        rows = await self._all("delete_dead", namespace=name.namespace, name=name.topic, ids=list(ids))
        return {row[0] for row in rows}

    async def existing(self, ids: Sequence[int]) -> dict[int, str]:
        """Returns id → `namespace/topic` of those PostgreSQL has, alive or dead."""
        return dict(await self._all("existing", ids=list(ids)))

    async def request_key(self, key_hash: bytes, now: int) -> tuple[bytes, bytes] | None:
        """Returns body hash and ids (as runs) of a request that was enqueued under this key, where PostgreSQL knows of
        it. `now`: the shard clock, µs.
        """
        rows = await self._all("request_key", key_hash=key_hash, now=now)
        return rows[0] if rows else None

    async def cold_counts(self, namespaces: Sequence[str] | None) -> dict[str, tuple[int, int]]:
        """Returns `namespace/topic` → rows leased, rows not yet due."""
        rows = await self._read(_reader(namespaces), "cold_counts", namespaces=None if namespaces is None else list(namespaces))
        return {topic: (leased, delayed) for topic, leased, delayed in rows}

    async def unplaced(self, ids: Sequence[int]) -> bool:
        """Does one of these arrivals still wait for the leader?"""
        return bool((await self._all("unplaced", ids=list(ids)))[0][0])

    async def message_by_id(self, id: int, namespaces: Collection[str] | None) -> Any | None:
        """Returns its row, whatever its namespace. `namespaces`: those of whoever asks; None: all."""
        rows = await self._read(_reader(namespaces), "message_by_id", id=id)
        return rows[0] if rows else None

    async def row_to_cancel(self, id: int) -> tuple[str, bytes]:
        """Returns the topic (`namespace/topic`; empty: PostgreSQL does not have it alive), and what a cancel must bring
        along.
        """
        return row_to_cancel(id, (await self._all("row_to_cancel", id=id))[0])

    async def unique_rows(self, unique_keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns what an enqueue under each of these unique keys must bring along; `b""`: where there is nothing."""
        return unique_rows(await self._all("unique_rows", unique_keys=list(unique_keys), limit=UNIQUE_ROWS_MAX))

    async def request_cancel(self, id: int, namespace: str) -> None:
        await self._do("request_cancel", ids=[id], namespaces=[namespace])

    async def cancel_requests(self, after: int, namespaces: Sequence[str], limit: int) -> list[tuple[int, int]]:
        """Returns number and id of those beyond `after`."""
        return await self._all("cancel_requests", after=after, namespaces=list(namespaces), limit=limit)

    async def last_cancel_request(self) -> int:
        """Returns its number; 0: there is none."""
        return int((await self._all("last_cancel_request"))[0][0])

    async def keep_results(self, results: Sequence[Result]) -> None:
        """Keeps all of them, in one statement. No two may be of one message."""
        async with self._connection("write") as connection:
            await connection.execute(
                sql("keep_results"),
                {
                    "ids": [r.id for r in results], "namespaces": [r.namespace for r in results], "topics": [r.topic for r in results],
                    "receipts": [r.receipt for r in results], "values": [r.value for r in results], "ttls": [r.ttl for r in results],
                },
            )  # fmt: skip

    async def result_of(
        self, id: int, name: TopicName | None, namespaces: Collection[str] | None, *, values: bool
    ) -> tuple[str, str, int, bytes | None] | None:
        """Returns namespace, topic, µs when it was stored, and the value if asked for; of this topic and of these
        namespaces (None: of any).
        """
        if name is not None:
            namespaces = [name.namespace] if namespaces is None or name.namespace in namespaces else []
        among = None if namespaces is None else list(namespaces)
        rows = await self._all("result_of", id=id, namespaces=among, topic=None if name is None else name.topic, values=values)
        return rows[0] if rows else None

    async def ended(self, ids: Sequence[int]) -> set[int]:
        """Returns those that have a result, or are dead letters."""
        return {id for (id,) in await self._all("ended", ids=list(ids))}

    async def put_workers(self, reports: Sequence[WorkerReport]) -> None:
        """Writes all in one statement; no two may be of one worker."""
        await self._do(
            "put_workers", names=[r.key.name for r in reports], namespaces=[" ".join(r.key.namespaces) for r in reports],
            progressing=[" ".join(map(str, r.progressing)) for r in reports], reports=[r.text for r in reports],
        )  # fmt: skip

    async def drop_workers(self, keys: Collection[WorkerKey]) -> None:
        await self._do("drop_workers", names=[key.name for key in keys], namespaces=[" ".join(key.namespaces) for key in keys])

    async def workers(self, namespaces: Sequence[str] | None) -> list[tuple[str, int]]:
        """Returns reports, and when they came (µs)."""
        return await self._all(
            "workers",
            unheard=WORKER_UNHEARD_S,
            namespaces=None if namespaces is None else list(namespaces),
            limit=WORKERS_MAX,
            bytes=WORKERS_BYTES_MAX,
        )

    async def progress_of(self, id: int, namespace: str) -> list[str]:
        """Returns reports of workers of this namespace that name this message with its progress."""
        return [text for (text,) in await self._all("progress_of", id=id, namespace=namespace, unheard=WORKER_UNHEARD_S)]

    async def ledger(self) -> list[Any]:
        """Returns namespace, topic, enqueued, acked, dead, expired, purged, cancelled, rows, refused."""
        return await self._all("ledger")

    async def audit_topic(self, after: int, limit: int) -> tuple[int, int, int] | None:
        """Returns of the first topic above this id: its id, the messages its ledger tells of, and those there are, rows
        and refused ones each counted to the limit.
        """
        rows = await self._all("audit_topic", after=after, limit=limit)
        return rows[0] if rows else None

    async def topic_counts(self, namespaces: Sequence[str] | None) -> list[Any]:
        return await self._read(_reader(namespaces), "topic_counts", namespaces=None if namespaces is None else list(namespaces))


def _reader(namespaces: Collection[str] | None) -> str:
    """Returns in whose line somebody waits who may see these namespaces."""
    return "" if namespaces is None else ",".join(sorted(namespaces))


def _kind(statement: str) -> str:
    return "control" if statement in CONTROL else "read"


async def _check(connection: AsyncConnection[Any]) -> None:
    """Refuses a connection that has ended while it was idle, so that the pool lends another one. Nothing is asked: only
    one on which something has come unasked is looked at more closely.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def _configure(kind: str, connection: AsyncConnection[Any]) -> None:
    try:
        async with asyncio.timeout(CONFIGURE_S):  # of a pooler that has none to spare it is the first to wait
            await connection.execute(sql("session"), session_settings(kind))
    except BaseException:
        await connection.close()
        raise


def session_settings(kind: str) -> dict[str, str]:
    """Returns the arguments of session.sql."""
    return {"statement_ms": str(STATEMENT_MS[kind]), "idle_ms": str(IDLE_MS.get(kind, IDLE_ELSE_MS))}


def connect_args(kind: str) -> dict[str, Any]:
    """Returns how a broker connects; `session.sql` belongs to it."""
    return {
        "autocommit": True,
        "connect_timeout": CONNECT_S,
        "client_encoding": "UTF8",
        "application_name": f"mqueue {kind}",
        **KEEPALIVE,
    }


def _silence(node: int, host: str, seconds: float | None) -> str:
    return f"node {node} on {host or 'an unknown host'}, " + ("stopped" if seconds is None else f"{seconds / 3600:.1f} h")
