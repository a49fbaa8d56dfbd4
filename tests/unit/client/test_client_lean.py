"""Our own connections: how many, how long, and what ends them."""

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop
from fake_broker import FakeBroker
from test_client_calls import Either

from mqueue import wire
from mqueue.client import AsyncClient, Client, NoEndpoint, protocol
from mqueue.errors import Unavailable
from tests.odd_server import EMPTY_LIST, Line, hangs_up, odd_server, says
from tests.waiting import until, wait_until

BOTH = pytest.mark.parametrize("kind", [Client, AsyncClient])


@pytest.fixture(autouse=True)
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MQUEUE_TRANSPORT", raising=False)


class Held:
    """Answers once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, line: Line, head: bytes) -> None:
        self.go.wait(20)
        line.send(EMPTY_LIST)


@BOTH
async def test_no_more_connections_than_allowed(kind: type) -> None:
    held = Held()
    with odd_server(held) as server:
        client = Either(kind(server.url, "t", retries=False, connections=2))
        calls = [asyncio.create_task(client.fetch("t")) for _ in range(6)]
        await until(lambda: len(server.heads) == 2, "two are under way")
        held.go.set()
        assert await asyncio.gather(*calls) == [[]] * 6
        assert (server.most, len(server.lines), len(server.heads)) == (2, 2, 6)
        await client.close()


@BOTH
async def test_a_call_that_gets_no_connection_in_time_says_so(kind: type) -> None:
    held = Held()
    with odd_server(held) as server:
        made = kind(server.url, "t", retries=False, connections=1)
        client = Either(made)
        first = asyncio.create_task(client.fetch("t"))
        await until(lambda: len(server.heads) == 1, "it is under way")
        made._timeout = 0.2
        with pytest.raises(Unavailable, match="all connections are in use"):
            await client.fetch("t")
        made._timeout = 5.0
        third = asyncio.create_task(client.fetch("t"))
        held.go.set()
        assert [await first, await third] == [[], []]
        assert len(server.lines) == 1
        await client.close()


@BOTH
async def test_an_answer_in_drops_has_its_time_in_all(kind: type) -> None:
    def drops(line: Line, head: bytes) -> None:
        for place in range(len(EMPTY_LIST)):
            line.send(EMPTY_LIST[place : place + 1])
            threading.Event().wait(0.05)

    with odd_server(drops) as server:
        client = Either(kind(server.url, "t", retries=False, timeout=0.4))
        began = time.monotonic()
        with pytest.raises(Unavailable, match="timed out"):
            await client.fetch("t")
        assert 0.35 < time.monotonic() - began < 2
        await client.close()


@BOTH
async def test_a_shorter_call_ends_before_a_longer_one_would_have(kind: type) -> None:
    """Both on one connection, whose timer was set for the first."""
    held = Held()
    with odd_server(says(EMPTY_LIST), held) as server:
        client = Either(kind(server.url, "t", retries=False, timeout=0.3))
        assert await client.fetch("t", wait=30) == []
        began = time.monotonic()
        with pytest.raises(Unavailable, match="timed out"):
            await client.fetch("t")
        assert 0.25 < time.monotonic() - began < 2
        assert len(server.lines) == 1
        held.go.set()
        await client.close()


async def test_a_longer_call_outlasts_the_timer_of_a_shorter_one() -> None:
    async with AsyncClient("http://127.0.0.1:9", "t", retries=False) as client:
        held = Held()
        with odd_server(says(EMPTY_LIST), held) as server:
            client.url = server.url
            client._timeout = 0.2
            assert await client.fetch("t") == []
            call = asyncio.create_task(client.fetch("t", wait=10))
            threading.Timer(0.5, held.go.set).start()
            assert await call == []
            assert len(server.lines) == 1


async def test_a_call_that_is_cancelled_takes_its_connection_with_it() -> None:
    held = Held()
    with odd_server(held, says(EMPTY_LIST)) as server:
        async with AsyncClient(server.url, "t", retries=False, connections=1) as client:
            call = asyncio.create_task(client.fetch("t"))
            await until(lambda: server.heads, "it is under way")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            held.go.set()
            await until(lambda: server.ended, "its connection is closed")
            assert await client.fetch("t") == []
            assert len(server.lines) == 2


async def test_one_that_is_cancelled_while_it_waits_or_connects_leaves_its_place() -> None:
    held = Held()
    with odd_server(held) as server:
        async with AsyncClient(server.url, "t", retries=False, connections=1, timeout=5) as client:
            for turns in range(12):
                call = asyncio.create_task(client.fetch("t"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            first = asyncio.create_task(client.fetch("t"))
            await asyncio.sleep(0)
            second = asyncio.create_task(client.fetch("t"))
            await asyncio.sleep(0)
            second.cancel()
            held.go.set()
            assert [await first, await client.fetch("t")] == [[], []]
            await until(lambda: len(server.lines) - server.ended == 1, "one is open")


async def test_calls_go_on_over_a_renewal_and_end_with_its_connections() -> None:
    held = Held()
    with odd_server(held, says(EMPTY_LIST)) as server:
        async with AsyncClient(server.url, "t", retries=False) as client:
            old = asyncio.create_task(client.fetch("t"))
            await until(lambda: server.heads, "it is under way")
            client.renew()
            assert await client.fetch("t") == []
            assert len(server.lines) == 2
            assert not old.done()
            await client.drop_old()
            with pytest.raises(Unavailable, match="its connections were closed"):
                await old
            assert await client.fetch("t") == []
            assert len(server.lines) == 2
            held.go.set()


async def test_those_that_wait_or_connect_end_with_their_session_too() -> None:
    held = Held()
    with odd_server(held) as server:
        client = AsyncClient(server.url, "t", retries=False, connections=1)
        calls = [asyncio.create_task(client.fetch("t")) for _ in range(3)]
        await until(lambda: server.heads, "one is under way, two wait")
        await client.close()
        for call in calls:
            with pytest.raises(Unavailable, match="its connections were closed"):
                await call
        held.go.set()
        client = AsyncClient(server.url, "t", retries=False)
        call = asyncio.create_task(client.fetch("t"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(Unavailable, match="its connections were closed"):
            await call


@BOTH
async def test_a_connection_that_was_idle_for_long_is_not_used(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    with odd_server(says(EMPTY_LIST)) as server:
        client = Either(kind(server.url, "t", retries=False))
        assert [await client.fetch("t"), await client.fetch("t")] == [[], []]
        assert len(server.lines) == 1
        monkeypatch.setattr(protocol, "IDLE_S", 0.0)
        assert await client.fetch("t") == []
        await until(lambda: server.ended == 1, "the old one is closed")
        assert len(server.lines) == 2
        await client.close()


def addresses(*found: tuple[str, int]) -> Callable[..., Any]:
    return lambda *args, **options: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]


@BOTH
async def test_a_name_has_several_addresses(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    with odd_server(says(EMPTY_LIST)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", addresses(closed.getsockname(), ("127.0.0.1", server.port)))
            client = Either(kind("http://broker", "t", retries=False))
            assert await client.fetch("t") == []
            await client.close()
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", addresses(closed.getsockname()))
            client = Either(kind("http://broker", "t", retries=False))
            with pytest.raises(Unavailable, match=r"cannot reach the broker at http://broker: .*refused|Connect call failed"):
                await client.fetch("t")
            await client.close()


@BOTH
async def test_a_name_that_is_none(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    client = Either(kind("http://nowhere", "t", retries=False))
    with pytest.raises(Unavailable, match=r"cannot reach the broker at http://nowhere: .*Name or service not known"):
        await client.fetch("t")
    await client.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_has_connections_of_its_own() -> None:
    with odd_server(says(EMPTY_LIST)) as server, Client(server.url, "t", retries=False, timeout=5) as client:
        assert client.fetch("t") == []
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if client.fetch("t") == [] and client.fetch("t") == [] else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.fetch("t") == []
        assert (len(server.lines), len(server.heads)) == (2, 4)
        wait_until(lambda: server.ended == 1, "the child's is closed, and the parent's is not")


def test_many_threads_share_few_connections() -> None:
    with (
        odd_server(says(EMPTY_LIST)) as server,
        Client(server.url, "t", retries=False, connections=3) as client,
        ThreadPoolExecutor(16) as threads,
    ):
        assert list(threads.map(lambda _: client.fetch("t"), range(400))) == [[]] * 400
        assert server.most <= 3


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_one_that_nobody_closes_ends_with_its_client() -> None:
    with odd_server(says(EMPTY_LIST)) as server:
        client = Client(server.url, "t", retries=False)
        assert client.fetch("t") == []
        del client
        gc.collect()
        wait_until(lambda: server.ended == 1, "it is closed")


def test_a_connection_in_use_is_closed_after_its_call() -> None:
    held = Held()
    with odd_server(held) as server, ThreadPoolExecutor(1) as threads:
        client = Client(server.url, "t", retries=False)
        call = threads.submit(client.fetch, "t")
        wait_until(lambda: server.heads, "it is under way")
        client.close()
        held.go.set()
        assert call.result(10) == []
        wait_until(lambda: server.ended, "it is closed")


def test_on_uvloop(broker: FakeBroker) -> None:
    async def main() -> None:
        async with AsyncClient(broker.url, broker.token, retries=False, connections=2) as client:
            ids = await asyncio.gather(*(client.enqueue("t", bytes(100_000)) for _ in range(20)))
            assert len({*ids}) == 20
            assert len(await client.fetch("t", limit=20)) == 20
            call = asyncio.create_task(client.fetch("t", wait=20))
            await until(lambda: broker.waiting, "it waits")
            client.renew()
            await client.drop_old()
            with pytest.raises(Unavailable, match="its connections were closed"):
                await call
        with odd_server(hangs_up) as server:
            pass
        async with AsyncClient(server.url, "t", retries=False) as client:
            with pytest.raises(Unavailable, match="cannot reach the broker"):
                await client.fetch("t")

    uvloop.run(main())


@BOTH
def test_what_no_header_can_hold_is_refused(kind: type) -> None:
    async def main() -> None:
        client = Either(kind("http://127.0.0.1:9", "t"))
        with pytest.raises(ValueError, match="a header no line break"):
            await client.enqueue_many([wire.EnqueueItem(topic="t")], durability="wal\r\nX: y")
        await client.close()

    asyncio.run(main())


@BOTH
async def test_a_transport_that_is_none(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQUEUE_TRANSPORT", "pigeon")
    with pytest.raises(NoEndpoint, match="'pigeon': it is lean or library"):
        await Either(kind("http://127.0.0.1:9", "t")).fetch("t")
