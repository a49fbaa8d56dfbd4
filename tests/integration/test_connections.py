"""Calls to a real server get their own answers, whatever becomes of the connections that stay in hand."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import redis.asyncio as aioredis
from redis.asyncio.connection import BlockingConnectionPool

from mqueue.broker.cache.connections import HELD_MAX, Connections
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.embedded import StoreUrls
from mqueue.torture.proxy import Proxy

CONNECTIONS = HELD_MAX + 4
TIMEOUT_S = 0.5


@pytest.fixture(params=["unix socket", "tcp"])
async def pool(stores: StoreUrls, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Over TCP the library looks at its connections less closely."""
    proxy = Proxy(Path(unquote(urlsplit(stores.redis_addrs[0]).path)))
    await proxy.start()
    url = stores.redis_addrs[0] if request.param == "unix socket" else f"redis://127.0.0.1:{proxy.port}"
    pool = BlockingConnectionPool.from_url(
        url, password=stores.redis_password, max_connections=CONNECTIONS, timeout=10 * TIMEOUT_S, socket_timeout=None
    )
    yield pool
    await pool.disconnect()
    await proxy.close()


async def echo(connections: Connections, count: int) -> None:
    """So many at once."""
    words = [b"%d" % n for n in range(count)]
    assert await asyncio.gather(*(connections.execute(("ECHO", word)) for word in words)) == words


async def test_many_at_once_get_their_own_answers_and_leave_room_for_others(pool: Any) -> None:
    connections = Connections(pool, 5.0)
    await echo(connections, 10 * CONNECTIONS)
    client = aioredis.Redis(connection_pool=pool)
    assert await asyncio.gather(*(client.echo(str(n)) for n in range(CONNECTIONS))) == [b"%d" % n for n in range(CONNECTIONS)]


async def test_the_server_closes_them_and_nobody_notices(pool: Any, stores: StoreUrls) -> None:
    connections = Connections(pool, 5.0)
    await echo(connections, HELD_MAX)
    async with aioredis.from_url(stores.redis_addrs[0], password=stores.redis_password) as other:
        assert await other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= HELD_MAX
    await asyncio.sleep(0.05)  # the ends come meanwhile, and nobody is told
    await echo(connections, CONNECTIONS)


async def test_an_answer_that_comes_too_late_is_nobodys(pool: Any) -> None:
    connections = Connections(pool, TIMEOUT_S)
    for _ in range(2 * CONNECTIONS):
        late = [asyncio.create_task(connections.execute(("BLPOP", "nothing", 1))) for _ in range(2)]
        await asyncio.sleep(0)
        late[0].cancel()
        assert isinstance((await asyncio.gather(*late[:1], return_exceptions=True))[0], asyncio.CancelledError)
        late[1].cancel()
        await echo(connections, 2)
    with pytest.raises(TimeoutError):
        await connections.execute(("BLPOP", "nothing", 10))
    await echo(connections, CONNECTIONS)


async def test_those_in_hand_go_back_to_the_pool(pool: Any) -> None:
    connections = Connections(pool, TIMEOUT_S)
    await echo(connections, HELD_MAX)
    await connections.release()
    await pool.disconnect(inuse_connections=False)
    await echo(connections, CONNECTIONS)


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_while_connections_are_closed_cancels_nobody_else(stores: StoreUrls, turns: int) -> None:
    """A committer ended for ever, since a lane of the leader was cancelled: both closed the same connections."""
    cache = ReadyCache(0, stores.redis_addrs[0], stores.redis_password)
    await echo(cache._connections, 10)
    closing = [asyncio.create_task(cache.forget_connections()) for _ in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    closing[0].cancel()
    _, *others = await asyncio.gather(*closing, return_exceptions=True)
    assert others == [None, None]
    await cache.close()
