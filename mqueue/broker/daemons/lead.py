"""A Lead is what a daemon of the leader works with."""

import asyncio
import uuid
from dataclasses import dataclass, field, replace

from mqueue.broker.shard import Shard
from mqueue.broker.store.leader.store import LeaderStore


@dataclass(slots=True)
class Shared:
    """What the lanes of one leadership share.

    `pages`: is held from a page's SELECT to the script that takes its rows, and while a flush reports to Redis what it
    has written: a record that is dropped in between would let an ended row come back, or strand one that the page has
    missed. No transaction that writes is open while somebody holds it, so nobody who holds it waits for whoever waits.

    `leases`: a flush and the mirror of leases never mix. `mirrors`: may PostgreSQL know leases? Then each flush looks
    for those that ended. `token`: tells this leadership from one of the same term: PostgreSQL that forgets may give a
    term again.
    """

    pages: asyncio.Lock = field(default_factory=asyncio.Lock)
    leases: asyncio.Lock = field(default_factory=asyncio.Lock)
    mirrors: bool = True
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(slots=True)
class Lead:
    """One leadership: the session of `store` holds the lock, or is a lane's own; its term fences all it does; `epoch`
    is the one it opened or found.
    """

    shard: Shard
    store: LeaderStore
    term: int
    epoch: int
    shared: Shared = field(default_factory=Shared)

    def on(self, store: LeaderStore) -> "Lead":
        """Returns the same leadership on another session."""
        return replace(self, store=store)

    @property
    def mirrors(self) -> bool:
        return self.shared.mirrors

    @mirrors.setter
    def mirrors(self, mirrors: bool) -> None:
        self.shared.mirrors = mirrors
