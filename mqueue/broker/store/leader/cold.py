"""What the leader of a cold shard does in PostgreSQL: it moves the shard clock, ends leases, and expires messages."""

from collections.abc import Callable
from typing import NamedTuple

from mqueue.broker.store import write
from mqueue.broker.store.cold import apply, failed, leased
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.queries import fetch, sql
from mqueue.broker.store.write import Ledger

LEASE_LIMIT = 1000  # leases ended in one transaction
LEASE_ENDED = "the lease expired: the worker died, hung, or took longer than its lease"


class Turned(NamedTuple):
    """The shard clock, how many leases ended, how many messages expired, and how many rows PostgreSQL has refused."""

    clock: int
    ended: int
    expired: int
    refused: int


class ColdLeaderStore:
    def __init__(self, session: LeaderSession) -> None:
        self._session = session

    async def turn(
        self, epoch: int, term: int, went_on: Callable[[], int], wall_us: Callable[[], int], expires: int = 0, *, ends: bool = True
    ) -> Turned:
        """Moves the shard clock, ends leases where it `ends` them, and expires up to `expires` messages; in a
        transaction that nobody waits for.

        Both clocks are read behind the fence: whoever waited there let time pass. `went_on`: where the shard clock
        would go on. Where `wall_us`, this broker's wall clock, and PostgreSQL's are both past it, it goes on to the
        lesser of them: time that passed while nobody led.
        """
        connection = self._session.connection
        async with self._session.fenced(epoch, term):
            clock, wall = went_on(), wall_us()
            postgres_us = (await fetch(connection, "commit_loosely"))[0][0]
            [(clock, _)] = await fetch(connection, "tick", clock=max(clock, min(wall, postgres_us)))
            ended, refused = await self._end_leases(clock) if ends else (0, 0)
            expired = await self._expire(clock, expires) if expires else 0
        return Turned(clock, ended, expired, refused)

    async def _end_leases(self, clock: int) -> tuple[int, int]:
        """Makes messages whose lease has run out wait again, their attempt counted, or die. Returns how many, and how
        many of them PostgreSQL refuses.
        """
        connection = self._session.connection
        held = [id for (id,) in await fetch(connection, "dead_leases", now=clock, limit=LEASE_LIMIT)]
        if not held:
            await connection.execute(sql("prune_leases"), {"now": clock, "limit": LEASE_LIMIT})
            return 0, 0
        messages = {m.id: m for m in map(leased, await fetch(connection, "leased_messages", ids=held))}
        ended = [id for (id,) in await fetch(connection, "end_leases", ids=held, now=clock)]
        refused = await apply(connection, [failed(messages[id], messages[id].due, LEASE_ENDED) for id in ended], clock)
        return len(ended), refused

    async def _expire(self, clock: int, limit: int) -> int:
        """Deletes messages past their TTL that nobody has. Returns how many went."""
        connection = self._session.connection
        rows = await self._session.ask("expired_page", now=clock, expires=0, id=0, limit=limit)
        if not rows:
            return 0
        ids = [id for id, _, _ in rows]
        await connection.execute(sql("lock_messages"), {"ids": ids})
        gone = await fetch(connection, "delete_unleased", ids=ids, versions=[version for _, version, _ in rows])
        ledger = Ledger()
        for _, topic_id in gone:
            ledger.add(topic_id, "expired")
        await write.lock_and_write_ledger(connection, ledger)
        return len(gone)
