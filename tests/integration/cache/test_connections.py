"""Calls to a real server get their own answers, whatever becomes of the connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import redis.asyncio as aioredis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from mqueue.broker.cache.connections import Connections
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.embedded import StoreUrls
from mqueue.torture.proxy import Proxy
from tests.waiting import until

MOST = 4
TIMEOUT_S = 0.5


@pytest.fixture(params=["unix socket", "tcp"])
async def pool(stores: StoreUrls, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    proxy = Proxy(socket_of(stores))
    await proxy.start()
    url = stores.redis_addrs[0] if request.param == "unix socket" else f"redis://127.0.0.1:{proxy.port}"
    yield pool_of(url, stores)
    await proxy.close()


def pool_of(url: str, stores: StoreUrls) -> Any:
    return ConnectionPool.from_url(url, password=stores.redis_password, max_connections=MOST, socket_timeout=None)


def socket_of(stores: StoreUrls) -> Path:
    return Path(unquote(urlsplit(stores.redis_addrs[0]).path))


async def echo(connections: Connections, count: int) -> None:
    """So many at once."""
    words = [b"%d" % n for n in range(count)]
    assert await asyncio.gather(*(connections.execute(("ECHO", word)) for word in words)) == words


async def test_many_at_once_get_their_own_answers(pool: Any) -> None:
    connections = Connections(pool, 5.0)
    await echo(connections, 1000)

    async def caller(name: int) -> None:
        for n in range(50):
            assert await connections.execute(("ECHO", f"{name} {n}")) == b"%d %d" % (name, n)

    await asyncio.gather(*map(caller, range(50)))
    assert len(connections._pipelines) <= MOST
    connections.close()


async def test_the_server_closes_them_and_nobody_notices(pool: Any, stores: StoreUrls) -> None:
    connections = Connections(pool, 5.0)
    await echo(connections, 500)
    there = len(connections._pipelines)
    async with aioredis.from_url(stores.redis_addrs[0], password=stores.redis_password) as other:
        assert await other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= there
    await until(lambda: not connections._pipelines, "their ends have come")
    await echo(connections, 500)
    connections.close()


async def test_an_answer_that_comes_too_late_is_nobodys(pool: Any) -> None:
    connections = Connections(pool, TIMEOUT_S)
    for _ in range(5 * MOST):
        late = [asyncio.create_task(connections.execute(("BLPOP", "nothing", 1))) for _ in range(2)]
        await asyncio.sleep(0)
        late[0].cancel()
        assert isinstance((await asyncio.gather(*late[:1], return_exceptions=True))[0], asyncio.CancelledError)
        late[1].cancel()
        await echo(connections, 2)
    with pytest.raises(TimeoutError):
        await connections.execute(("BLPOP", "nothing", 10))
    await echo(connections, 100)
    connections.close()


async def test_a_script_that_is_not_there_is_loaded_while_others_are_asked(pool: Any) -> None:
    connections = Connections(pool, 5.0)
    script = "return {ARGV[1], #ARGV}"
    sha = await connections.execute(("SCRIPT", "LOAD", script))

    async def run(n: int) -> None:
        if n % 20 == 0:
            await connections.execute(("SCRIPT", "FLUSH"))
        try:
            got = await connections.execute(("EVALSHA", sha, 0, f"{n}"))
        except RedisError as error:
            assert type(error).__name__ == "NoScriptError"
            await connections.execute(("SCRIPT", "LOAD", script))
            got = await connections.execute(("EVAL", script, 0, f"{n}"))
        assert got == [b"%d" % n, 1]

    for turn in range(10):
        await asyncio.gather(*(run(n + turn) for n in range(40)))
    connections.close()


class Cut:
    """A way to the server that ends after so many bytes of a direction."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.left: dict[str, int | None] = {"to it": None, "from it": None}
        self.passed = {"to it": 0, "from it": 0}
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Cut"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        yield self
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(self._target)
        pumps = [asyncio.create_task(self._pump("to it", reader, there[1])), asyncio.create_task(self._pump("from it", there[0], writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, there[1]):
            each.close()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            left = self.left[way]
            if left is not None:
                data = data[:left]
                self.left[way] = left - len(data)
            self.passed[way] += len(data)
            writer.write(data)
            if self.left[way] == 0:
                return


LARGE = b"x" * 500
ASKED: list[tuple[tuple[Any, ...], Any]] = [
    (("ECHO", "first"), b"first"),
    (("EVAL", "return {1, false, {ARGV[1], {}}, redis.status_reply('fine')}", 0, "two"), [1, None, [b"two", []], b"fine"]),
    (("ECHO", LARGE), LARGE),
    (("EVAL", "return -7", 0), -7),
]


async def ask(connections: Connections) -> list[Any]:
    return await asyncio.gather(*(connections.execute(command) for command, _ in ASKED), return_exceptions=True)


@pytest.mark.parametrize("way", ["to it", "from it"])
async def test_a_way_that_ends_at_any_byte_of_an_exchange(stores: StoreUrls, way: str) -> None:
    async with Cut(socket_of(stores)).open() as cut:
        connections = Connections(pool_of(f"redis://127.0.0.1:{cut.port}", stores), 5.0)
        expected = [answer for _, answer in ASKED]
        await connections.execute(("PING",))
        before = cut.passed[way]
        assert await ask(connections) == expected
        for size in range(1, cut.passed[way] - before):
            cut.left[way] = size
            got = await ask(connections)
            assert any(isinstance(answer, Exception) for answer in got)
            for one, answer in zip(expected, got, strict=True):
                assert answer == one or isinstance(answer, RedisError | OSError)
            cut.left[way] = None
            assert await ask(connections) == expected
        connections.close()


@pytest.mark.parametrize("way", ["to it", "from it"])
async def test_a_way_that_ends_in_the_handshake(stores: StoreUrls, way: str) -> None:
    async with Cut(socket_of(stores)).open() as cut:
        connections = Connections(pool_of(f"redis://127.0.0.1:{cut.port}", stores), 5.0)
        for size in range(1, 150, 7):
            cut.left[way] = size
            assert all(isinstance(answer, RedisError | OSError) for answer in await ask(connections))
            cut.left[way] = None
            assert await ask(connections) == [answer for _, answer in ASKED]
            connections.close()


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_while_connections_are_closed_cancels_nobody_else(stores: StoreUrls, turns: int) -> None:
    """A committer ended for ever, since a lane of the leader was cancelled: both closed the same connections."""
    cache = ReadyCache(0, stores.redis_addrs[0], stores.redis_password)
    await asyncio.gather(*(cache._redis.ping() for _ in range(10)), cache._connections.execute(("PING",)))
    closing = [asyncio.create_task(cache.forget_connections()) for _ in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    closing[0].cancel()
    _, *others = await asyncio.gather(*closing, return_exceptions=True)
    assert others == [None, None]
    await cache.close()
