"""Commands go over the library's pool, without those parts of the library that cost as much as a script.

The library takes a connection out of its pool and puts it back for each command, and packs in Python. Here some stay in
hand.
"""

import asyncio
from typing import Any

import hiredis
from redis.exceptions import RedisError

HELD_MAX = 16


class Connections:
    """A few connections that stay in hand. `pool`: one of redis.asyncio, whose connections have no timeout of their
    own. `timeout`: seconds, of a whole command.
    """

    def __init__(self, pool: Any, timeout: float) -> None:  # Any, as the library's hints say str where bytes come
        self._pool = pool
        self._timeout = timeout
        self._held: list[Any] = []  # connected and idle; for the pool they are in use

    async def execute(self, command: tuple[Any, ...]) -> Any:
        """Returns the answer. Raises TimeoutError, RedisError, OSError; the connection is closed then, unless the
        server has said so.
        """
        async with asyncio.timeout(self._timeout):
            connection = await self._take()
            try:
                await connection.send_packed_command(hiredis.pack_command(command))
                return await connection.read_response()
            finally:
                await self._give_back(connection)

    async def release(self) -> None:
        """Gives the connections in hand back to the pool."""
        while self._held:
            await self._pool.release(self._held.pop())

    async def close(self) -> None:
        """Closes those that nobody uses."""
        await self.release()
        await self._pool.disconnect(inuse_connections=False)

    async def _take(self) -> Any:
        while self._held:
            connection = self._held.pop()
            if await _is_usable(connection):
                return connection
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
        return await self._pool.get_connection()

    async def _give_back(self, connection: Any) -> None:
        if connection.is_connected and len(self._held) < HELD_MAX:
            self._held.append(connection)
        else:
            await self._pool.release(connection)


async def _is_usable(connection: Any) -> bool:
    """Has nothing come that nobody asked for, not even its end?"""
    try:
        return connection.is_connected and not await connection.can_read()
    except (RedisError, OSError):
        return False
