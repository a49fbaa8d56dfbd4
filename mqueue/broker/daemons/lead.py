"""A Lead is what a daemon of the leader works with."""

from dataclasses import dataclass

from mqueue.broker.shard import Shard
from mqueue.broker.store.leader.store import LeaderStore


@dataclass(slots=True)
class Lead:
    """One leadership: the session of `store` holds the lock, its term fences all it does; `epoch` is the one it opened
    or found.
    """

    shard: Shard
    store: LeaderStore
    term: int
    epoch: int
    mirrors: bool = True  # may PostgreSQL know leases? Then each flush looks for those that ended
