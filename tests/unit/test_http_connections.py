"""What a connection may and may not do: trailers, large headers, offered upgrades, pipelining, too many connections."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
from http_fake import DEADLINE_S, Broker, answer, bearer, broker, connect, ends, head

from mqueue.broker.http import descriptors, protocol
from tests.waiting import until

BODY = b'[{"topic":"t","payload":"eA=="}]'
CHUNKED = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)


@pytest.fixture
async def b() -> AsyncIterator[Broker]:
    async with broker() as running:
        yield running


async def code(reader: asyncio.StreamReader) -> tuple[int, str]:
    status, _, body = await answer(reader)
    return status, json.loads(body)["code"]


def anonymous(**headers: str) -> bytes:
    return head("/enqueue", "POST", **headers).replace(b"Authorization", b"X-Other")


async def test_a_token_in_a_trailer_is_none(b: Broker) -> None:
    reader, writer = await connect(b)
    trailer = f"Authorization: {bearer()['Authorization']}\r\n\r\n".encode()
    writer.write(anonymous(**{"Transfer-Encoding": "chunked"}) + CHUNKED + trailer + head("/health"))
    assert await code(reader) == (401, "unauthorized")
    assert (await answer(reader))[0] == 200  # the trailers are over, and the connection goes on
    assert b.engine.calls == []
    writer.close()


async def test_trailers_are_ignored(b: Broker) -> None:
    reader, writer = await connect(b)
    writer.write(head("/enqueue", "POST", **{"Transfer-Encoding": "chunked"}) + CHUNKED)
    writer.write(b"Content-Type: application/msgpack\r\nIdempotency-Key: x\r\n\r\n")
    status, headers, _ = await answer(reader)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert len(b.engine.calls) == 1
    assert isinstance(b.engine.calls[0][1], list)  # without a key
    writer.close()


@pytest.mark.parametrize("trailer", [b"a: " + b"y" * 50 + b"\r\n", b"y" * 1024], ids=["many", "one"])
async def test_trailers_without_end_are_cut_off(b: Broker, trailer: bytes) -> None:
    _, writer = await connect(b)
    writer.write(anonymous(**{"Transfer-Encoding": "chunked"}) + b"0\r\n" + (b"a: " if len(trailer) == 1024 else b""))
    sent = 0
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(DEADLINE_S):
            while sent < 64 * 2**20:
                writer.write(trailer * 16)
                await writer.drain()
                sent += len(trailer) * 16
    assert sent < 16 * 2**20  # most of it in the buffers of the two sockets
    writer.transport.abort()
    assert (await b.get("/health"))[0] == 200
    await left(b, connections=1)


async def left(b: Broker, connections: int) -> None:
    """Returns when no more connections are left."""
    assert b.server._server is not None
    state = b.server._server.server_state
    await until(lambda: len(state.connections), f"{connections} connections", DEADLINE_S, enough=lambda count: count <= connections)


@pytest.mark.parametrize("size", [32 * 1024 - 600, 33 * 1024])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_headers_may_have_32_kib(b: Broker, size: int, pieces: int) -> None:
    reader, writer = await connect(b)
    request = head("/dequeue?topic=t", X="x" * (size // 2), Y="y" * (size // 2))
    step = len(request) // pieces + 1
    for start in range(0, len(request), step):
        writer.write(request[start : start + step])
        assert (await b.get("/health"))[0] == 200  # the server has had its turn: the next piece is a read of its own
    status, _, body = await answer(reader)
    assert status == (200 if size < 32 * 1024 else 431), body
    writer.close()


UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}


@pytest.mark.parametrize("cut", [0, 30, 400, -40, -10])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_offered_upgrade_is_declined_and_the_body_read(b: Broker, chunked: bool, cut: int) -> None:
    reader, writer = await connect(b)
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(BODY))}
    request = head("/enqueue", "POST", **UPGRADE, **framing) + (CHUNKED + b"\r\n" if chunked else BODY)
    for piece in (request[:cut], request[cut:] + head("/health")):
        writer.write(piece)
        assert (await b.get("/health"))[0] == 200  # the server has had its turn: the next piece is a read of its own
    status, _, body = await answer(reader)
    assert (status, json.loads(body)) == (200, [2**62])
    assert (await answer(reader))[0] == 200
    assert [message.payload for message in b.engine.calls[0][1]] == [b"x"]
    writer.close()


async def test_many_offered_upgrades_in_one_read(b: Broker) -> None:
    reader, writer = await connect(b)
    one = b"GET /health HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    writer.write(one * 2_000)
    for _ in range(2_000):
        assert (await answer(reader))[0] == 200
    writer.close()


async def test_the_broker_is_no_proxy(b: Broker) -> None:
    reader, writer = await connect(b)
    writer.write(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await code(reader) == (400, "invalid")
    assert await ends(reader) == b""
    writer.close()


@pytest.mark.parametrize("late", [False, True], ids=["with the first", "after the first"])
async def test_hanging_up_behind_a_pipelined_request_cancels_the_fetch(b: Broker, late: bool) -> None:
    b.engine.waits = True
    _, writer = await connect(b)
    behind = head("/health") + head("/dequeue?topic=u&wait=60")
    writer.write(head("/dequeue?topic=t&wait=60") + (b"" if late else behind))
    await asyncio.wait_for(b.engine.waiting.wait(), DEADLINE_S)
    if late:
        await asyncio.sleep(0.2)  # the watcher of the wait reads by now
        writer.write(behind)
        assert (await b.get("/health"))[0] == 200  # the server has had its turn
    writer.close()
    await asyncio.wait_for(b.engine.cancelled.wait(), DEADLINE_S)
    await left(b, connections=0)
    assert len(b.engine.calls) == 1  # what waited behind it never began


async def test_pipelined_requests_are_answered_in_order(b: Broker) -> None:
    reader, writer = await connect(b)
    count = 3 * protocol.PIPELINE_MAX
    for n in range(count):
        writer.write(head("/health") if n % 2 else head("/dequeue?topic=t"))
    for n in range(count):
        status, headers, _ = await answer(reader)
        assert (status, headers["content-type"].startswith("text/plain")) == (200, bool(n % 2))
    writer.close()


async def test_surplus_connections_are_closed_unread() -> None:
    async with broker(connections_max=2) as b:
        kept = [await connect(b) for _ in range(2)]
        reader, writer = await connect(b)
        status, headers, body = await answer(reader)  # without having asked
        assert (status, headers["connection"], json.loads(body)["code"]) == (503, "close", "unavailable")
        assert headers["retry-after"] == "1"
        assert await ends(reader) == b""
        writer.close()
        for reader, writer in kept:
            writer.write(head("/health"))
            assert (await answer(reader))[0] == 200
            writer.close()
        await left(b, connections=0)
        assert (await b.get("/health"))[0] == 200


@pytest.mark.parametrize(
    ("files", "connections"),
    [(64, 16), (256, 16), (1_024, 384), (20_000, 4_096), (10**9, 4_096), (resource.RLIM_INFINITY, 4_096)],
)
def test_connections_leave_descriptors_for_the_rest(files: int, connections: int) -> None:
    assert descriptors.connections_max(files) == connections


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "allowed", "after"),
    [
        ((1_024, 4_096), 4_096, 4_096),
        ((4_096, 4_096), 4_096, None),
        ((INFINITY, INFINITY), 0, None),
        ((256, INFINITY), 10_240, 10_240),
        ((1_024, 4_096), 0, None),
    ],
)
def test_the_soft_limit_is_raised_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], allowed: int, after: int | None
) -> None:
    done = []

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        if limits[0] == INFINITY or limits[0] > allowed:
            raise ValueError
        done.append(limits)

    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert descriptors.raise_limit() == (after or before[0])
    assert done == ([(after, before[1])] if after else [])


async def test_starting_a_server_raises_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "raise_limit", lambda: 0)
    monkeypatch.setattr(descriptors, "CONNECTIONS_MIN", 1)
    async with broker() as b:
        first: Any = await connect(b)
        reader, writer = await connect(b)
        assert (await answer(reader))[0] == 503
        writer.close()
        first[1].close()
