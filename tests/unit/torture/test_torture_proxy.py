"""The proxy that faults cut and stall: what passes, and what becomes of the connections there were."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mqueue.torture.proxy import Proxy

LIMIT_S = 10.0
SILENCE_S = 0.05


class Way:
    """One connection through the proxy, to a server that echoes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def through(cls, proxy: Proxy) -> "Way":
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def said(self, word: bytes) -> None:
        self._writer.write(word)
        await self._writer.drain()

    async def heard(self, size: int) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            return await self._reader.readexactly(size)

    async def echoes(self) -> bool:
        await self.said(b"hello")
        return await self.heard(5) == b"hello"

    async def silent(self) -> bool:
        try:
            async with asyncio.timeout(SILENCE_S):
                return not await self._reader.read(1)
        except TimeoutError:
            return True

    async def broken(self) -> bool:
        """Reset, or closed."""
        try:
            async with asyncio.timeout(LIMIT_S):
                return not await self._reader.read(1)
        except ConnectionError:
            return True

    def close(self) -> None:
        self._writer.close()


class Echo:
    def __init__(self) -> None:
        self.reached = 0  # connections
        self.ended = asyncio.Event()  # one of them

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached += 1
        while data := await reader.read(1000):
            writer.write(data)
        self.ended.set()
        writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture(params=["port", "unix"])
async def proxy(request: pytest.FixtureRequest, echo: Echo, tmp_path: Path) -> AsyncIterator[Proxy]:
    target: Path | int = tmp_path / "socket"
    if request.param == "unix":
        server = await asyncio.start_unix_server(echo.serve, target)
    else:
        server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
        target = server.sockets[0].getsockname()[1]
    proxy = Proxy(target)
    await proxy.start()
    yield proxy
    await proxy.close()
    server.close()
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        _, left = await asyncio.wait(left, timeout=LIMIT_S)
    assert not left


async def test_a_cut_resets_and_refuses_until_it_is_healed(proxy: Proxy, echo: Echo) -> None:
    way = await Way.through(proxy)
    assert await way.echoes()
    proxy.cut()
    assert await way.broken()
    assert await (await Way.through(proxy)).broken()
    assert echo.reached == 1
    proxy.heal()
    assert await (await Way.through(proxy)).echoes()


async def test_what_was_stalled_flows_on(proxy: Proxy) -> None:
    way = await Way.through(proxy)
    assert await way.echoes()
    proxy.stall()
    late = await Way.through(proxy)
    await way.said(b"held back")
    assert await way.silent() and await late.silent()
    proxy.heal()
    assert await way.heard(9) == b"held back"
    assert await way.echoes() and await late.echoes()


async def test_what_was_stalled_is_reset(proxy: Proxy) -> None:
    way = await Way.through(proxy)
    assert await way.echoes()
    proxy.stall()
    await way.said(b"lost")
    assert await way.silent()
    proxy.heal("reset")
    assert await way.broken()
    assert await (await Way.through(proxy)).echoes()


async def test_what_was_stalled_is_forgotten(proxy: Proxy, echo: Echo) -> None:
    way = await Way.through(proxy)
    assert await way.echoes()
    proxy.stall()
    await way.said(b"lost")
    proxy.heal("forgotten")
    assert await (await Way.through(proxy)).echoes()
    assert await way.silent()
    proxy.stall()
    proxy.heal()
    await way.said(b"hello?")
    assert await way.silent()  # for ever
    way.close()
    async with asyncio.timeout(LIMIT_S):
        await echo.ended.wait()


async def test_the_end_of_one_side_is_the_others(proxy: Proxy, echo: Echo) -> None:
    way = await Way.through(proxy)
    assert await way.echoes()
    way.close()
    async with asyncio.timeout(LIMIT_S):
        await echo.ended.wait()


async def test_nobody_there(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path / "none")
    await proxy.start()
    assert await (await Way.through(proxy)).broken()
    await proxy.close()
