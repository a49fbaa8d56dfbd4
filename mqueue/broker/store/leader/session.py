"""A session is the connection on which a leader works: it holds the lock that elects, and every transaction on it is
fenced.

The stores of a leader's subjects share one session: `store.py` names them. Nobody else sees the connection.

Raises StoreLost where no answer came (what was asked may have happened), Deposed where the fence says that another
epoch or term stands.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from mqueue.broker.faults import Deposed, RowExists, RowRefused, StoreLost
from mqueue.broker.store.aside import refuses_data
from mqueue.broker.store.queries import sql
from mqueue.broker.store.shard import ShardStore


class LeaderSession:
    """The leader's connection. `store`: what any broker asks of this shard's PostgreSQL, on connections of a pool."""

    def __init__(self, store: ShardStore, connection: AsyncConnection[Any]) -> None:
        self.store = store
        self.connection = connection

    async def topic_ids(self, names: Iterable[str]) -> dict[str, int]:
        """Returns the ids of these topics; makes those that are new. It asks on connections that only leaders use."""
        return await self.store.topic_ids(names, "leader")

    async def ask(self, name: str, **args: Any) -> list[Any]:
        """Runs one statement and returns its rows. Outside a transaction it is one by itself, without a fence."""
        try:
            cursor = await self.connection.execute(sql(name), args, binary=True)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise StoreLost(f"PostgreSQL of shard {self.store.number}, {name}: {error}") from error

    @asynccontextmanager
    async def fenced(self, epoch: int, term: int, *, moves: bool = False) -> AsyncIterator[int]:
        """Begins a daemon's transaction by locking the shard row on its epoch and term. Yields N, the last dirty number
        flushed.

        `moves`: the transaction will change that row. Raises RowExists, too: then nothing was written.
        """
        try:
            async with self.connection.transaction():
                fence = sql("fence_move" if moves else "fence")
                rows = await (await self.connection.execute(fence, {"epoch": epoch, "term": term}, binary=True)).fetchall()
                if not rows:
                    raise Deposed(f"epoch {epoch}, term {term} is over")
                yield rows[0][0]
        except UniqueViolation as error:
            raise RowExists(f"PostgreSQL of shard {self.store.number}: {error}") from error
        except psycopg.Error as error:
            fault = RowRefused if refuses_data(error) else StoreLost
            raise fault(f"PostgreSQL of shard {self.store.number}: {error}") from error
