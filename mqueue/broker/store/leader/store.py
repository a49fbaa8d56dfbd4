"""A LeaderStore is what a leader does in its shard's PostgreSQL, on the session that holds its lock: here, how it is
elected and how an epoch is closed and opened. Its other subjects have a store each: pages, flushes, prunes, ticks, a
cold shard.

Each method is one transaction of a daemon, or one statement: a daemon decides and calls, it composes no statements.

Raises StoreLost where no answer came (what was asked may have happened), Deposed where the fence says that another
epoch or term stands.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from mqueue.broker.faults import Deposed
from mqueue.broker.format import record
from mqueue.broker.store import write
from mqueue.broker.store.leader.cold import ColdLeaderStore
from mqueue.broker.store.leader.flush import FlushStore
from mqueue.broker.store.leader.pages import PageStore
from mqueue.broker.store.leader.prune import PruneStore
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.leader.ticks import TickStore
from mqueue.broker.store.queries import sql
from mqueue.broker.store.rows import Key, behind, leased_row
from mqueue.broker.store.seats import ShardRow
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.store.write import Ledger

LEADER_LOCK = 0x6D71_1EAD


class LeaderStore:
    """What a leader does in PostgreSQL. `session`: holds the leader's lock, or tries to. The other attributes are the
    stores of its subjects.
    """

    def __init__(self, session: LeaderSession) -> None:
        self._session = session
        self._lock = LEADER_LOCK + session.store.number
        self.pages = PageStore(session)
        self.flushes = FlushStore(session)
        self.prunes = PruneStore(session)
        self.ticks = TickStore(session)
        self.cold = ColdLeaderStore(session)

    @classmethod
    async def connect(cls, store: ShardStore, kind: str = "leader") -> "LeaderStore":
        """Opens a session. `kind`: whose deadlines it has."""
        return cls(LeaderSession(store, await store.connect(kind)))

    async def close(self) -> None:
        await self._session.connection.close()

    @property
    def closed(self) -> bool:
        """Has the connection ended, and the lock with it?"""
        return self._session.connection.closed

    async def pulse(self, epoch: int, term: int) -> None:
        """Looks whether the session lives, and the fence stands. Raises Deposed; StoreLost: nothing answers."""
        (row,) = await self._session.ask("fence_stands")
        if tuple(row) != (epoch, term):
            raise Deposed(f"epoch {epoch}, term {term} is over: epoch {row[0]}, term {row[1]} stands")

    # -- election ------------------------------------------------------------------------------------------------------

    async def try_lock(self) -> bool:
        return bool((await self._session.ask("try_lock", key=self._lock))[0][0])

    async def unseat(self, node: int, silent_s: float) -> bool:
        """Ends the leader's session where its broker has been silent for so long, or is this one; True if it was
        one.
        """
        return bool(await self._session.ask("unseat", key=self._lock, node=node, silent_s=silent_s))

    async def raise_term(self, floor: int, node: int) -> int:
        return int((await self._session.ask("raise_term", floor=floor, node=node))[0][0])

    # -- epochs --------------------------------------------------------------------------------------------------------

    async def raise_epoch(self, term: int, floor: int) -> int:
        """Closes the epoch. Returns the next one."""
        rows = await self._session.ask("raise_epoch", term=term, floor=floor)
        if not rows:
            raise Deposed(f"term {term} is over")
        return int(rows[0][0])

    async def open_cold(self, epoch: int, term: int, timeline: int, clock: int) -> None:
        """Opens the epoch without Redis."""
        async with self._session.fenced(epoch, term, moves=True):
            await self._cancel_requested(clock)
            await self._open(epoch, term, "cold", "", timeline, clock)
            await self._session.ask("tick", clock=clock)  # what is enqueued before the first turn is stamped past it

    @asynccontextmanager
    async def opening_hot(
        self, epoch: int, term: int, run_id: str, clock_of: Callable[[ShardRow], tuple[int, int]]
    ) -> AsyncIterator["Opening"]:
        """Opens the epoch in the Redis with this run id, once the block has filled it. One transaction; undone where
        the block raises.

        `clock_of`: where the clock of the epoch begins, at least and at most, given the shard's row.
        """
        store = self._session.store
        async with self._session.fenced(epoch, term, moves=True):
            row = await store.row()
            clock = clock_of(row)
            await self._cancel_requested(clock[0])
            yield Opening(self._session, clock)
            await self._open(epoch, term, "hot", run_id, row.timeline_now)

    async def _open(self, epoch: int, term: int, mode: str, run_id: str, timeline: int, clock: int = 0) -> None:
        if not await self._session.ask("open_shard", epoch=epoch, term=term, mode=mode, run_id=run_id, timeline=timeline, clock=clock):
            raise Deposed(f"epoch {epoch}, term {term} is over")

    async def _cancel_requested(self, now: int) -> None:
        """Ends what was to be cancelled while it ran, and runs no more."""
        ledger = Ledger()
        for (topic_id,) in await self._session.ask("cancel_requested", now=now):
            ledger.add(topic_id, "cancelled")
        await write.write_ledger(self._session.connection, ledger)

    async def keep_keys(self, epoch: int, term: int, keys: Sequence[Key]) -> None:
        """Writes keys of whole requests."""
        async with self._session.fenced(epoch, term):
            await write.keep_keys(self._session.connection, keys)

    # -- long leases ---------------------------------------------------------------------------------------------------

    async def mirror_leases(self, epoch: int, term: int, leases: Sequence[tuple[int, int, int, int]]) -> None:
        """Makes PostgreSQL know these leases and no others. Each is id, epoch, number, end."""
        ids, epochs, numbers, untils = (list(column) for column in zip(*leases, strict=True)) if leases else ([], [], [], [])
        connection = self._session.connection
        async with self._session.fenced(epoch, term):
            await connection.execute(sql("drop_mirrors"), {"ids": ids})
            await connection.execute(sql("mirror_leases"), {"ids": ids, "epochs": epochs, "numbers": numbers, "untils": untils})


class Opening:
    """What PostgreSQL tells a Redis in which an epoch opens, within the transaction that opens it. `clock`: where that
    of the epoch begins, at least and at most.
    """

    def __init__(self, session: LeaderSession, clock: tuple[int, int]) -> None:
        self._session = session
        self.clock = clock

    async def live_leases(self, after: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Returns the messages whose lease still runs, as id, leased record and body; by id, above `after`."""
        rows = await self._session.ask("live_leases", after=after, limit=limit, now=self.clock[0])
        return [(row[0], *leased_row(row, *behind(row))) for row in rows]

    async def request_keys(self, limit: int) -> list[tuple[bytes, bytes]]:
        """Returns key hash and key record (as record.IDEMPOTENCY packs it, with the ids) of whole requests that were
        enqueued past Redis.
        """
        rows = await self._session.ask("request_keys", now=self.clock[0], limit=limit)
        return [(h, record.IDEMPOTENCY.pack(id, body, 0, 0, expires, 1, b"r") + ids) for h, body, id, expires, ids in rows]

    async def positions(self) -> dict[int, int]:
        """Returns how far each broker's log is in PostgreSQL, by node."""
        return {b.node: b.position for b in await self._session.store.brokers()}
