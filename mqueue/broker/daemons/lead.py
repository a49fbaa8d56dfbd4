"""What a daemon of the leader works with."""

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from mqueue.broker.shard import Shard


@dataclass(slots=True)
class Lead:
    """One leadership: its connection holds the lock, its term fences all it does; `epoch` is the one it opened or found."""

    shard: Shard
    connection: AsyncConnection[Any]
    term: int
    epoch: int
    mirrors: bool = True  # may PostgreSQL know leases? Then each flush looks for those that ended
