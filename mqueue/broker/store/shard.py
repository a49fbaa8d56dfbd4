"""One shard's PostgreSQL: the durable truth. One method per `.sql` file, but for `flush`, which is one transaction of several.

Raises StoreLost where no answer came (what was asked may have happened), Deposed where the fence says that another epoch or term stands.
"""

import socket
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import InterfaceError, OperationalError, UniqueViolation
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from mqueue.broker import failpoints, record
from mqueue.broker.circuit import Circuit
from mqueue.broker.faults import Deposed, NodeTaken, StoreLost
from mqueue.broker.store import write
from mqueue.broker.store.queries import sql
from mqueue.broker.store.write import END_OF_STATE, FlushBatch, Ledger
from mqueue.clock import Clock, SystemClock
from mqueue.message import TopicName

LEADER_LOCK = 0x6D71_1EAD
POOL_WAIT_S = 2.0
OPEN_S = 10.0
CONNECT_S = 2  # to each server of the URL: one that has lost its host never answers, and the next one may have been promoted
# Connections by kind of work, so that none starves another: how the shard is; batches and replays, one at a time each; what is asked.
POOLS = {"control": 2, "write": 2, "read": 8}
CONTROL = frozenset({"heartbeat", "shard_row", "brokers", "leave", "create_shard", "register_broker", "create_slot_map", "slot_map", "seat"})
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000}  # a dead network is noticed
STATEMENT_MS = {"control": 2_000, "write": 15_000, "read": 5_000, "leader": 30_000}
REGISTER_TRIES = 20
KEY_COLUMNS = ("priority", "rank", "due", "id")
FIRST_PARTS = (-(2**31), 0, 0, 0)  # of a key below all others, and above
LAST_PARTS = (2**31 - 1, 2**31 - 1, 2**63 - 1, 2**63 - 1)
# Index plans on a table without statistics: the planner may not prefer what reads it whole.
OPTIONS = "-c enable_seqscan=off -c enable_bitmapscan=off -c jit=off -c lock_timeout=5000 -c idle_in_transaction_session_timeout=60000"

B = TypeVar("B")
Row = tuple[bytes, bytes]  # record, body


@dataclass(frozen=True, slots=True)
class ShardRow:
    number: int
    shards: int
    epoch: int
    term: int
    mode: str
    run_id: str
    dirty_number: int
    clock_us: int
    timeline: int  # in which the epoch was opened
    timeline_now: int


@dataclass(frozen=True, slots=True)
class BrokerRow:
    node: int
    position: int
    started: int
    replayed: int
    silent_s: float  # since its last heartbeat
    reaches: bool  # Redis, then


class Registered(NamedTuple):
    """What a broker's numbers must begin after: sequences past `position` and `started`, ids at `id_floor_ms` (since 2024) or later."""

    node: int
    position: int
    started: int
    id_floor_ms: int


@dataclass(frozen=True, slots=True)
class Seat:
    """What a broker is in one shard's database, by its identity."""

    node: int
    position: int
    started: int
    silent_s: float  # since its last heartbeat; very long after a clean stop


class ShardStore:
    def __init__(self, number: int, url: str, clock: Clock | None = None) -> None:
        self.number = number
        self.url = url
        self.circuit = Circuit(clock or SystemClock())
        self._pools = {kind: self._pool(kind, size) for kind, size in POOLS.items()}
        self._topic_ids: dict[str, int] = {}
        self._timeline = 0  # in which they are these

    def _pool(self, kind: str, size: int) -> AsyncConnectionPool:
        """Its pauses between tries double: it soon gives up, and begins anew when it is next asked, so that a long outage makes none long."""
        return AsyncConnectionPool(
            self.url, min_size=1, max_size=size, timeout=POOL_WAIT_S, reconnect_timeout=POOL_WAIT_S, open=False, kwargs=_connect_args(kind),
            name=f"shard-{self.number}-{kind}",
        )  # fmt: skip

    async def open(self) -> None:
        """Returns when it is connected: whoever waits for a pool later waits less long than a server that never answers takes."""
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

    async def connect(self) -> AsyncConnection[Any]:
        """A connection of the leader's own, outside the pool."""
        try:
            return await AsyncConnection.connect(self.url, **_connect_args("leader"))
        except psycopg.Error as error:
            raise StoreLost(f"PostgreSQL of shard {self.number}: {error}") from error

    @asynccontextmanager
    async def _connection(self, kind: str) -> AsyncIterator[AsyncConnection[Any]]:
        """Where PostgreSQL has failed several times, all but control is refused at once for a while."""
        if kind != "control" and not self.circuit.allows():
            raise StoreLost(f"PostgreSQL of shard {self.number} has failed: it is tried again in a moment")
        try:
            async with self._pools[kind].connection() as connection:
                yield connection
            self.circuit.succeeded()
        except UniqueViolation:
            raise
        except (psycopg.Error, PoolTimeout) as error:
            if isinstance(error, OperationalError | InterfaceError | PoolTimeout):  # it is away, or too slow; else it is what was asked
                self.circuit.failed()
            raise StoreLost(f"PostgreSQL of shard {self.number}: {error}") from error

    @asynccontextmanager
    async def transaction(self, kind: str = "write") -> AsyncIterator[AsyncConnection[Any]]:
        async with self._connection(kind) as connection, connection.transaction():
            yield connection

    async def _all(self, statement: str, /, **args: Any) -> list[Any]:
        async with self._connection(_kind(statement)) as connection:
            return await (await connection.execute(sql(statement), args, binary=True)).fetchall()

    async def _do(self, statement: str, /, **args: Any) -> None:
        async with self._connection(_kind(statement)) as connection:
            await connection.execute(sql(statement), args)

    # -- who is who ----------------------------------------------------------------------------------------------------------

    async def create(self, shards: int) -> None:
        await self._do("create_shard", number=self.number, shards=shards)

    async def row(self) -> ShardRow:
        row = ShardRow(*(await self._all("shard_row"))[0])
        if row.timeline_now != self._timeline:  # a promoted server may lack topics that were made last, and give their ids to others
            self._timeline, self._topic_ids = row.timeline_now, {}
        return row

    async def slot_map(self, shards: int) -> list[int]:
        await self._do("create_slot_map", shards=shards)
        return list((await self._all("slot_map"))[0][0])

    async def register_broker(self, identity: uuid.UUID, node: int | None) -> Registered:
        """Raises NodeTaken where another broker has this number."""
        for _ in range(REGISTER_TRIES):
            with suppress(UniqueViolation):
                if rows := await self._all("register_broker", identity=identity, node=node, host=socket.gethostname()):
                    return Registered(*rows[0])
                if node is not None:
                    raise NodeTaken(f"node number {node} belongs to another broker")
            # another one started at the same time, and took that number
        raise StoreLost(f"PostgreSQL of shard {self.number}: no node number is free")

    async def retire_broker(self, identity: uuid.UUID, last: int, id_floor_ms: int) -> bool:
        """Frees its number if it is flushed up to `last`."""
        return bool(await self._all("retire_broker", identity=identity, last=last, id_floor_ms=id_floor_ms))

    async def seat(self, identity: uuid.UUID) -> Seat | None:
        """None: it was never here, or its number was freed."""
        rows = await self._all("seat", identity=identity)
        return Seat(*rows[0]) if rows else None

    async def heartbeat(self, node: int, replayed: int, started: int, reaches: bool = True) -> int:
        """`reaches`: Redis. Returns this broker's position."""
        return int((await self._all("heartbeat", node=node, replayed=replayed, started=started, reaches=reaches))[0][0])

    async def leave(self, node: int) -> None:
        """This broker uses no epoch any more: nobody need wait for it."""
        await self._do("leave", node=node)

    async def position(self, node: int) -> int:
        """The last sequence of this broker that is flushed."""
        return next(b.position for b in await self.brokers() if b.node == node)

    async def bury_orphans(self, node: int, started: int) -> None:
        """Once all is replayed that this broker has: what still waits for an enqueue of its former lives waits in vain."""
        await self._do("bury_orphans", node=node, started=started)

    async def brokers(self) -> list[BrokerRow]:
        return [BrokerRow(*row) for row in await self._all("brokers")]

    async def brokers_in(self, connection: AsyncConnection[Any]) -> list[BrokerRow]:
        return [BrokerRow(*row) for row in await (await connection.execute(sql("brokers"), binary=True)).fetchall()]

    async def try_lock(self, connection: AsyncConnection[Any]) -> bool:
        return bool((await self._leader(connection, "try_lock", key=LEADER_LOCK + self.number))[0][0])

    async def unseat(self, connection: AsyncConnection[Any], node: int, silent_s: float) -> bool:
        """Ends the leader's session where its broker has been silent for so long; True if it was one."""
        return bool(await self._leader(connection, "unseat", key=LEADER_LOCK + self.number, node=node, silent_s=silent_s))

    async def raise_term(self, connection: AsyncConnection[Any], floor: int, node: int) -> int:
        return int((await self._leader(connection, "raise_term", floor=floor, node=node))[0][0])

    async def raise_epoch(self, connection: AsyncConnection[Any], term: int, floor: int) -> int:
        rows = await self._leader(connection, "raise_epoch", term=term, floor=floor)
        if not rows:
            raise Deposed(f"term {term} is over")
        return int(rows[0][0])

    async def open_shard(self, connection: AsyncConnection[Any], epoch: int, term: int, mode: str, run_id: str, timeline: int) -> None:
        if not await self._leader(connection, "open_shard", epoch=epoch, term=term, mode=mode, run_id=run_id, timeline=timeline):
            raise Deposed(f"epoch {epoch}, term {term} is over")

    async def _leader(self, connection: AsyncConnection[Any], name: str, **args: Any) -> list[Any]:
        try:
            cursor = await connection.execute(sql(name), args, binary=True)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise StoreLost(f"PostgreSQL of shard {self.number}, {name}: {error}") from error

    @asynccontextmanager
    async def fenced(self, connection: AsyncConnection[Any], epoch: int, term: int, *, moves: bool = False) -> AsyncIterator[int]:
        """A daemon's transaction: begins by locking the shard row on its epoch and term. Yields N, the last dirty number flushed.

        `moves`: it will change that row.
        """
        try:
            async with connection.transaction():
                fence = sql("fence_move" if moves else "fence")
                rows = await (await connection.execute(fence, {"epoch": epoch, "term": term}, binary=True)).fetchall()
                if not rows:
                    raise Deposed(f"epoch {epoch}, term {term} is over")
                yield rows[0][0]
        except UniqueViolation:
            raise
        except psycopg.Error as error:
            raise StoreLost(f"PostgreSQL of shard {self.number}: {error}") from error

    # -- flush ---------------------------------------------------------------------------------------------------------------

    async def topic_ids(self, names: Iterable[str]) -> dict[str, int]:
        """Ids of these topics (`namespace/topic`), made where they are new."""
        missing = [name for name in set(names) if name not in self._topic_ids]
        if missing:
            halves = [name.split("/", 1) for name in missing]
            args = {"namespaces": [h[0] for h in halves], "names": [h[1] for h in halves]}
            await self._do("ensure_topics", **args)
            for id, namespace, name in await self._all("topic_ids", **args):
                self._topic_ids[f"{namespace}/{name}"] = id
        return self._topic_ids

    async def flush(self, connection: AsyncConnection[Any], epoch: int, term: int, batch: FlushBatch) -> None:
        """One transaction: rows, ends, dead letters, keys, ledger, positions, N and clock. Repeatable."""
        named = {r.topic for rows in (batch.fresh, batch.again, batch.dead) for r, _, _ in rows}
        named |= {gone.topic for gone in batch.gone} | {topic for _, topic, _, _ in batch.tallies}
        ids = await self.topic_ids(named) if named else {}
        try:
            await self._flush(connection, epoch, term, batch, ids)
        except UniqueViolation:  # a row that PostgreSQL has although Redis never flushed it (replayed meanwhile): by version, then
            batch.again += batch.fresh
            batch.fresh = []
            await self._flush(connection, epoch, term, batch, ids)

    async def _flush(self, connection: AsyncConnection[Any], epoch: int, term: int, batch: FlushBatch, ids: dict[str, int]) -> None:
        ledger = Ledger()
        async with self.fenced(connection, epoch, term, moves=True) as flushed:
            await failpoints.ahit("flush.before_copy")
            if batch.fresh:
                await write.copy(connection, "copy_message", batch.fresh, ids)
                for topic, count in Counter(r.topic for r, _, _ in batch.fresh).items():
                    ledger.add(ids[topic], "enqueued", count)
            await write.write_again(connection, batch.again, ids, ledger)
            await write.bury(connection, batch.dead, ids, ledger, batch.clock)
            await write.end(connection, batch.gone, flushed, ids, ledger)
            if batch.mirrors:
                ended = [r.id for rows in (batch.again, batch.dead) for r, _, _ in rows] + [gone.id for gone in batch.gone]
                await connection.execute(sql("delete_leases"), {"ids": ended})
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

    # -- what the prefetcher reads -------------------------------------------------------------------------------------------

    async def refill_page(
        self,
        connection: AsyncConnection[Any],
        topic: str,
        frontier: bytes,
        now: int,
        t_due: int,
        t_id: int,
        limit: int,
        size: int,
    ) -> tuple[list[Row], bytes]:
        """Rows at or above the frontier that are due, in key order, at most `limit` rows and `size` bytes; and the first key left out."""
        topic_id = (await self.topic_ids([topic]))[topic]
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
        rows = await self._leader(connection, "refill_page", **args, limit=limit + 1, bytes=size)
        return _page(rows, limit, lambda row: message_row(topic, row), lambda r: record.key(r[1], r[2], r[3], r[0]), record.LAST)

    async def time_page(
        self, connection: AsyncConnection[Any], due: int, id: int, until: int, limit: int, size: int
    ) -> tuple[list[Row], tuple[int, int]]:
        """Rows due from (due, id) up to `until`, and how far this page reaches."""
        rows = await self._leader(connection, "time_page", due=due, id=id, until=until, limit=limit + 1, bytes=size)
        shaped = [(row[0], *row[2:], row[1]) for row in rows]
        return _page(shaped, limit, lambda row: message_row(row[-1], row), lambda r: (r[3], r[0]), (until, 0))

    async def arrivals(self, connection: AsyncConnection[Any], limit: int) -> tuple[list[int], list[Row]]:
        """Ids of the oldest arrivals, and the rows of those that are still there."""
        rows = await self._leader(connection, "arrivals", limit=limit)
        return [row[0] for row in rows], [message_row(row[1], (row[0], *row[2:])) for row in rows if row[1] is not None]

    async def put_arrivals(self, connection: AsyncConnection[Any], ids: Sequence[int]) -> None:
        await connection.execute(sql("put_arrivals"), {"ids": list(ids)})

    async def delete_arrivals(self, connection: AsyncConnection[Any], ids: Sequence[int]) -> None:
        await connection.execute(sql("delete_arrivals"), {"ids": list(ids)})

    async def expired_page(self, connection: AsyncConnection[Any], now: int, after: tuple[int, int], limit: int) -> list[tuple[int, int, int]]:
        """Id, version, expiry of rows past their TTL, beyond (expiry, id)."""
        expires, id = after
        return await self._leader(connection, "expired_page", now=now, expires=expires, id=id, limit=limit)

    async def prune_keys(self, connection: AsyncConnection[Any], now: int, limit: int) -> int:
        """Returns how many went."""
        return len(await self._leader(connection, "prune_keys", now=now, limit=limit))

    # -- what the engine asks --------------------------------------------------------------------------------------------------

    async def find_keys(self, key_hashes: Sequence[bytes], now: int) -> list[tuple[bytes, bytes, int, int]]:
        """Key hash, body hash, id, expiry µs of those that are known."""
        return await self._all("find_keys", key_hashes=list(key_hashes), now=now)

    async def dead_page(self, name: TopicName, after: int, limit: int) -> list[Any]:
        return await self._all("dead_page", namespace=name.namespace, name=name.topic, after=after, limit=limit)

    async def delete_dead(self, name: TopicName, ids: Sequence[int]) -> set[int]:
        rows = await self._all("delete_dead", namespace=name.namespace, name=name.topic, ids=list(ids))
        return {row[0] for row in rows}

    async def existing(self, ids: Sequence[int]) -> dict[int, str]:
        """id → `namespace/topic` of those PostgreSQL has, alive or dead."""
        return dict(await self._all("existing", ids=list(ids)))

    async def request_key(self, key_hash: bytes) -> tuple[bytes, bytes] | None:
        """Body hash and ids (as runs) of a request that was enqueued past Redis under this key."""
        rows = await self._all("request_key", key_hash=key_hash)
        return rows[0] if rows else None

    async def cold_counts(self, namespaces: Sequence[str] | None) -> dict[str, tuple[int, int]]:
        """`namespace/topic` → rows leased, rows not yet due."""
        rows = await self._all("cold_counts", namespaces=None if namespaces is None else list(namespaces))
        return {topic: (leased, delayed) for topic, leased, delayed in rows}

    async def overdue_page(
        self, connection: AsyncConnection[Any], topic: str, after: bytes, frontier: bytes, before: int, limit: int
    ) -> list[bytes]:
        """Keys of rows above `after` and below the frontier that were due before then (µs)."""
        topic_id = (await self.topic_ids([topic]))[topic]
        begin = record.key_parts(after) if after else FIRST_PARTS
        end = record.key_parts(frontier) if frontier != record.LAST else LAST_PARTS
        args = dict(zip((*KEY_COLUMNS, *(f"to_{column}" for column in KEY_COLUMNS)), (*begin, *end), strict=True))
        rows = await self._leader(connection, "overdue_page", topic_id=topic_id, **args, before=before, limit=limit)
        return [record.key(*row) for row in rows]

    async def mirror_leases(self, connection: AsyncConnection[Any], leases: Sequence[tuple[int, int, int, int]]) -> None:
        """Id, epoch, number, end of the leases that are to be known: these and no others."""
        ids, epochs, numbers, untils = (list(column) for column in zip(*leases, strict=True)) if leases else ([], [], [], [])
        await connection.execute(sql("drop_mirrors"), {"ids": ids})
        await connection.execute(sql("mirror_leases"), {"ids": ids, "epochs": epochs, "numbers": numbers, "untils": untils})

    async def live_leases(self, connection: AsyncConnection[Any], after: int, limit: int, now: int) -> list[tuple[int, bytes, bytes]]:
        """Messages whose lease still runs: id, leased record, body; by id, above `after`."""
        rows = await self._leader(connection, "live_leases", after=after, limit=limit, now=now)
        return [(row[0], *leased_row(row[:16], *row[16:])) for row in rows]

    async def request_keys(self, connection: AsyncConnection[Any], now: int, limit: int) -> list[tuple[bytes, bytes]]:
        """Key hash and key record (as record.IDEMPOTENCY packs it, with the ids) of whole requests that were enqueued past Redis."""
        rows = await self._leader(connection, "request_keys", now=now, limit=limit)
        return [(h, record.IDEMPOTENCY.pack(id, body, 0, 0, expires, 1, b"r") + ids) for h, body, id, expires, ids in rows]

    async def unplaced(self, ids: Sequence[int]) -> bool:
        """Does one of these arrivals still wait for the leader?"""
        return bool((await self._all("unplaced", ids=list(ids)))[0][0])

    async def message_by_id(self, id: int) -> Any | None:
        rows = await self._all("message_by_id", id=id)
        return rows[0] if rows else None

    async def ledger(self) -> list[Any]:
        """Namespace, topic, enqueued, acked, dead, expired, purged, cancelled, rows."""
        return await self._all("ledger")

    async def topic_counts(self, namespaces: Sequence[str] | None) -> list[Any]:
        return await self._all("topic_counts", namespaces=None if namespaces is None else list(namespaces))


def _kind(statement: str) -> str:
    return "control" if statement in CONTROL else "read"


def _connect_args(kind: str) -> dict[str, Any]:
    options = f"{OPTIONS} -c statement_timeout={STATEMENT_MS[kind]}"
    return {"autocommit": True, "connect_timeout": CONNECT_S, "options": options, "application_name": f"mqueue {kind}", **KEEPALIVE}


def message_row(topic: str, row: Sequence[Any]) -> Row:
    (
        id,
        priority,
        rank,
        due,
        attempts,
        max_retries,
        version,
        lease_ms,
        node,
        sequence,
        expires,
        created,
        payload,
        metadata,
        key,
    ) = row[:15]
    body = record.body(created, payload, None if metadata is None else metadata.encode(), key)
    return (
        record.from_row(
            id=id, topic=topic, priority=priority, rank=rank, due=due, attempts=attempts, max_retries=max_retries, version=version,
            lease_ms=lease_ms, node=node, sequence=sequence, expires=expires, size=len(body),
        ),
        body,
    )  # fmt: skip


def leased_row(row: Sequence[Any], epoch: int, number: int, until: int) -> Row:
    """`row`: as `arrivals` has it: id, topic, and the rest."""
    data, body = message_row(row[1], (row[0], *row[2:]))
    return record.leased(data, epoch.to_bytes(4) + number.to_bytes(8), until), body


def _page(rows: Sequence[Any], limit: int, shape: Callable[[Any], Row], bound: Callable[[Any], B], end: B) -> tuple[list[Row], B]:
    """Cuts a page at its limit, or before the first row that came without its payload; says where the next one begins."""
    for n, row in enumerate(rows):
        if n == limit or row[12] is None:
            return [shape(row) for row in rows[:n]], bound(row)
    return [shape(row) for row in rows], end
