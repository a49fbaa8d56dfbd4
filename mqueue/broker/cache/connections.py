"""Commands over the library's pool, without what would cost as much as the script that is called.

The library takes a connection out of its pool and puts it back for each command, and packs in Python. Here some stay in
hand.
"""

import asyncio
from typing import Any

import hiredis
from redis.exceptions import RedisError

HELD_MAX = 16


class Connections:
    """`pool`: one of redis.asyncio, whose connections have no timeout of their own. `timeout`: seconds, of a whole
    command.
    """

    def __init__(self, pool: Any, timeout: float) -> None:  # Any, as the library's hints say str where bytes come
        self._pool = pool
        self._timeout = timeout
        self._held: list[Any] = []  # connected and idle; for the pool they are in use

    async def execute(self, command: tuple[Any, ...]) -> Any:
        """The answer. Raises TimeoutError, RedisError, OSError; the connection is closed then, unless the server has
        said so.
        """
        async with asyncio.timeout(self._timeout):
            connection = await self._take()
            try:
                await connection.send_packed_command(hiredis.pack_command(command))
                return await connection.read_response()
            finally:
                await self._give_back(connection)

    async def release(self) -> None:
        """Leave those in hand to the pool."""
        while self._held:
            await self._pool.release(self._held.pop())

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
    """Nothing has come that nobody asked for, also not its end."""
    try:
        return connection.is_connected and not await connection.can_read()
    except (RedisError, OSError):
        return False
