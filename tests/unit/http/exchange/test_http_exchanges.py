"""A request is answered alike however it comes: in one piece, whether its head was parsed before or not, byte by byte,
or in chunks. And what is in the way of one whose head is known: its client, the end of the server, a pipeline.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from http_fake import DEADLINE_S, DELIVERY, Broker, answer, bearer, broker, connect, ends, head

from mqueue.broker.http import protocol, server
from tests.waiting import until

MSGPACK = {"Content-Type": "application/msgpack"}
ITEM = b'[{"topic":"t","payload":"eA=="}]'
ACK = b'{"id":1,"topic":"t"}'
POLL = b'{"topics":["leads"],"limit":1,"settle":[{"id":7,"topic":"t","kind":"ack"}]}'
WAIT = b'{"topics":["t"],"limit":1,"wait":60}'


@pytest.fixture
async def b() -> AsyncIterator[Broker]:
    async with broker() as running:
        yield running


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What goes to the parser."""
    pieces: list[bytes] = []
    parse = protocol.BoundedProtocol._parse

    def note(self: protocol.BoundedProtocol, data: bytes) -> None:
        pieces.append(data)
        parse(self, data)

    monkeypatch.setattr(protocol.BoundedProtocol, "_parse", note)
    return pieces


def post(path: str, body: bytes = b"", **headers: str) -> bytes:
    return head(path, "POST", **{"Content-Length": str(len(body))} | headers) + body


async def known(b: Broker, request: bytes, parsed: list[bytes]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Returns a connection on which this request goes past the parser."""
    reader, writer = await connect(b)
    for _ in range(3):
        parsed.clear()
        writer.write(request)
        await answer(reader)
    assert parsed == []
    return reader, writer


CLAIMS: dict[str, dict[str, Any]] = {"restricted": {"allowed_namespaces": ["shop"]}, "reader": {"scopes": ["read"]}}
CASES: dict[str, tuple[str, str, bytes, dict[str, str]]] = {
    "enqueue": ("POST", "/enqueue", ITEM, {}),
    "enqueue msgpack": ("POST", "/enqueue", msgspec.msgpack.encode([{"topic": "t", "payload": b"x"}]), MSGPACK),
    "accepts msgpack": ("POST", "/enqueue", ITEM, {"Accept": "application/msgpack"}),
    "nothing is accepted": ("POST", "/enqueue", ITEM, {"Accept": ""}),
    "with a key": ("POST", "/enqueue", ITEM, {"Idempotency-Key": "k"}),
    "with a bad key": ("POST", "/enqueue", ITEM, {"Idempotency-Key": '""'}),
    "durable": ("POST", "/enqueue", ITEM, {"Mqueue-Durability": "postgres"}),
    "not so durable": ("POST", "/enqueue", ITEM, {"Mqueue-Durability": "tape"}),
    "compressed": ("POST", "/enqueue", ITEM, {"Content-Encoding": "gzip"}),
    "no body": ("POST", "/enqueue", b"", {}),
    "no JSON": ("POST", "/enqueue", b"[{]", {}),
    "a comment": ("POST", "/enqueue", b'[ // one\n{"topic":"t"}]', {}),
    "a field too many": ("POST", "/enqueue", b'[{"topic":"t","x":1}]', {}),
    "no such namespace": ("POST", "/enqueue", ITEM, {"Authorization": "restricted"}),
    "no scope": ("POST", "/enqueue", ITEM, {"Authorization": "reader"}),
    "no token": ("POST", "/enqueue", ITEM, {"Authorization": "Basic eDp5"}),
    "no method": ("PUT", "/enqueue", ITEM, {}),
    "ack": ("POST", "/ack", ACK, {}),
    "acks": ("POST", "/ack", b"[" + ACK + b"," + ACK + b"]", {}),
    "nack": ("POST", "/nack", ACK, {}),
    "extend": ("POST", "/extend", b'{"id":1,"topic":"t","receipt":"7-2a"}', {}),
    "poll": ("POST", "/poll", POLL, {}),
    "poll msgpack": ("POST", "/poll", POLL, {"Accept": "application/msgpack"}),
    "poll of nothing": ("POST", "/poll", b'{"limit":1}', {}),
    "a trace": ("POST", "/ack", ACK, {"Connection": "keep-alive", "X-Trace": "y" * 100}),
    "a long head": ("POST", "/ack", ACK, {"X-Trace": "y" * 3_000}),
    "a longer body": ("POST", "/enqueue", ITEM.rjust(40_000), {}),
    "a path in other letters": ("POST", "/%61ck", ACK, {}),
    "another route": ("POST", "/messages/5/cancel", b"", {}),
    "no route": ("POST", "/nothing", b"{}", {}),
}


async def told(b: Broker, pieces: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Any, ...]:
    """Sends a request in reads of their own; returns what came of it: the answer, what the engine was asked, what was
    counted.
    """
    before = counted(b)
    b.engine.calls.clear()
    for piece in pieces:
        writer.write(piece)
        if len(pieces) > 1:
            for _ in range(3):  # turns of the server, too: it reads it before the next comes
                await asyncio.sleep(0)
    status, headers, body = await answer(reader)
    headers.pop("date", None)
    await until(lambda: counted(b) != before, "it is counted", DEADLINE_S)
    return status, list(headers.items()), body, list(b.engine.calls), {name: value - before.get(name, 0) for name, value in counted(b).items()}


def counted(b: Broker) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in b.metrics.render().decode().splitlines() if line.startswith("mqueue_http_requests_total{")]
    return {name: float(value) for name, value in lines if float(value)}


@pytest.mark.parametrize("case", CASES)
async def test_a_request_is_answered_alike_however_it_comes(b: Broker, case: str) -> None:
    method, path, body, more = CASES[case]
    headers = {"Content-Length": str(len(body))} | more
    headers |= bearer(**CLAIMS[headers["Authorization"]]) if headers.get("Authorization") in CLAIMS else {}
    whole = head(path, method, **headers) + body
    chunked = head(
        path, method, **{name: value for name, value in headers.items() if name != "Content-Length"} | {"Transfer-Encoding": "chunked"}
    )
    first, second = body[: len(body) // 2], body[len(body) // 2 :]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (first, second) if part) + b"0\r\n\r\n"
    at = whole.index(b"\r\n\r\n") + 4
    step = max(1, len(whole) // 500)
    ways = {
        "head and body": [whole[:at], whole[at:]] if body else [whole],
        "byte by byte": [whole[i : i + step] for i in range(0, len(whole), step)],
        "chunked": [chunked + chunks],
    }
    reader, writer = await connect(b)
    expected = await told(b, [whole], reader, writer)
    for again in ("parsed", "perhaps known", "perhaps known again"):
        assert await told(b, [whole], reader, writer) == expected, again
    for way, pieces in ways.items():
        assert await told(b, pieces, reader, writer) == expected, way
    assert await told(b, [whole], reader, writer) == expected, "at last"
    writer.close()


async def test_only_the_same_head_goes_past_the_parser(b: Broker, parsed: list[bytes]) -> None:
    reader, writer = await known(b, post("/ack", ACK), parsed)
    for request in (post("/ack", ACK, X="y"), post("/ack", ACK.replace(b"1", b"10")), post("/nack", ACK)):
        writer.write(request)
        assert (await answer(reader))[0] == 200
        assert parsed.pop() == request
    writer.write(post("/ack", ACK.replace(b"1", b"2")))  # another body of that length
    assert json.loads((await answer(reader))[2])["id"] == 2
    assert parsed == []
    writer.close()


async def test_a_head_is_known_on_all_connections(b: Broker, parsed: list[bytes]) -> None:
    request = post("/ack", ACK)
    first = await known(b, request, parsed)
    reader, writer = await connect(b)
    writer.write(request)
    await answer(reader)
    assert parsed == [request]  # the first of a connection always is
    writer.write(request)
    assert (await answer(reader))[0] == 200
    assert parsed == [request]
    writer.close()
    first[1].close()


async def test_a_known_head_is_no_known_caller(b: Broker, parsed: list[bytes]) -> None:
    request = post("/ack", ACK)
    reader, writer = await known(b, request, parsed)
    b.server._app._hot["/ack"]._frame.auth.change("another secret of thirty-two characters")
    writer.write(request)
    assert (await answer(reader))[0] == 401
    assert parsed == []
    writer.close()


async def test_requests_behind_a_known_one_are_answered_in_order(b: Broker, parsed: list[bytes]) -> None:
    ack, enqueue = post("/ack", ACK), post("/enqueue", ITEM)
    reader, writer = await known(b, ack, parsed)
    later = await known(b, enqueue, parsed)
    go = asyncio.Event()
    settle = b.engine.settle

    async def slow(settles: Any) -> Any:
        await go.wait()
        return await settle(settles)

    b.engine.settle = slow  # type: ignore[method-assign]
    writer.write(ack)
    assert (await b.get("/health"))[0] == 200  # the server has read that
    for piece in (enqueue, ack[:100], ack[100:] + enqueue + ack, enqueue[:-1], enqueue[-1:]):
        writer.write(piece)
        assert (await b.get("/health"))[0] == 200
    go.set()
    for path in "aeaeae":
        status, _, body = await answer(reader)
        assert (status, isinstance(json.loads(body), list)) == (200, path == "e")
    parsed.clear()
    writer.write(ack)
    assert (await answer(reader))[0] == 200
    assert parsed == []  # the parser was left between two requests
    writer.close()
    later[1].close()


async def test_what_comes_after_a_known_one_is_still_looked_at(b: Broker, parsed: list[bytes]) -> None:
    reader, writer = await known(b, post("/ack", ACK), parsed)
    writer.write(post("/ack", ACK) + b"\x16\x03 no HTTP\r\n\r\n")
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (200, "close"), "a refusal does not overtake it, nor lie in its midst"
    assert await ends(reader) == b""
    writer.close()


async def test_who_sends_one_request_after_the_other_without_waiting_is_cut_off(b: Broker) -> None:
    reader, writer = await connect(b)
    writer.write(b"GET /health HTTP/1.1\r\n\r\n" * 9000)
    with suppress(ConnectionResetError):
        assert (await ends(reader)).count(b"HTTP/1.1 200") <= protocol.QUEUED_MAX
    assert reader.exception() is not None or reader.at_eof()
    assert (await b.get("/health"))[0] == 200
    writer.close()


async def test_a_head_whose_key_is_another_each_time_is_not_kept(b: Broker, parsed: list[bytes]) -> None:
    reader, writer = await connect(b)
    for _ in range(3):
        parsed.clear()
        writer.write(post("/enqueue", ITEM, **{"Idempotency-Key": "k"}))
        assert (await answer(reader))[0] == 200
        assert parsed
    writer.close()


async def test_hanging_up_ends_a_wait_whose_head_is_known(b: Broker, parsed: list[bytes]) -> None:
    reader, writer = await known(b, post("/poll", WAIT), parsed)
    b.engine.waits = True
    writer.write(post("/poll", WAIT))
    await asyncio.wait_for(b.engine.waiting.wait(), DEADLINE_S)
    assert parsed == []
    assert b.engine.asks[-1].gone() is False
    writer.close()
    await asyncio.wait_for(b.engine.cancelled.wait(), DEADLINE_S)
    await until(lambda: b'{route="/poll",status="499"} 1.0' in b.metrics.render(), seconds=DEADLINE_S)
    assert reader.at_eof() or await ends(reader) == b""


async def test_a_stop_ends_a_wait_whose_head_is_known(b: Broker, parsed: list[bytes]) -> None:
    reader, writer = await known(b, post("/poll", WAIT), parsed)
    b.engine.waits = True
    writer.write(post("/poll", WAIT))
    await asyncio.wait_for(b.engine.waiting.wait(), DEADLINE_S)
    await asyncio.wait_for(b.server.stop(grace=60), DEADLINE_S)
    status, headers, body = await answer(reader)
    assert (status, headers["connection"], json.loads(body)["code"]) == (503, "close", "unavailable")
    assert parsed == []
    assert await ends(reader) == b""
    writer.close()


async def test_a_stop_lets_one_whose_head_is_known_finish_or_answers_it(b: Broker, parsed: list[bytes]) -> None:
    request = post("/ack", ACK)
    connections = [await known(b, request, parsed) for _ in range(2)]
    go = [asyncio.Event(), asyncio.Event()]
    turn = iter(go)

    async def settle(settles: Any) -> list[str]:
        await next(turn).wait()
        return ["ok"]

    b.engine.settle = settle  # type: ignore[method-assign]
    for _, writer in connections:
        writer.write(request)
        assert (await b.get("/health"))[0] == 200
    stopping = asyncio.create_task(b.server.stop(grace=0.5))
    await asyncio.sleep(0)
    go[0].set()
    assert [(await answer(reader))[0] for reader, _ in connections] == [200, 503]
    await asyncio.wait_for(stopping, DEADLINE_S)
    for reader, writer in connections:
        assert await ends(reader) == b""
        writer.close()


async def test_who_does_not_read_a_large_answer_is_cut_though_its_head_is_known(parsed: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WRITE_S", 0.3)
    async with broker() as b:
        request = post("/poll", b'{"topics":["leads"],"limit":100}')
        reader, warm = await known(b, request, parsed)
        b.engine.deliveries = []
        mute = socket.socket()
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        host, port = b.server.url.removeprefix("http://").split(":")
        mute.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(mute, (host, int(port)))
        await loop.sock_sendall(mute, request)
        assert (await loop.sock_recv(mute, 4_096)).startswith(b"HTTP/1.1 200")
        parsed.clear()
        b.engine.deliveries = [msgspec.structs.replace(DELIVERY, payload=b"x" * 2**18) for _ in range(16)]
        await loop.sock_sendall(mute, request)
        await until(lambda: b'{route="/poll",status="498"} 1.0' in b.metrics.render(), "it is cut", DEADLINE_S)
        mute.close()
        assert parsed == []
        b.engine.deliveries = []
        warm.write(request)
        assert (await answer(reader))[0] == 200
        assert b'{route="/poll",status="498"} 1.0' in b.metrics.render()
        warm.close()


async def test_a_large_answer_is_whole(b: Broker, parsed: list[bytes]) -> None:
    reader, writer = await known(b, post("/poll", POLL), parsed)
    b.engine.deliveries = [msgspec.structs.replace(DELIVERY, payload=b"x" * 2**18)]
    writer.write(post("/poll", POLL))
    _, headers, body = await answer(reader)
    assert len(json.loads(body)["messages"][0]["payload"]) == 4 * (2**18 // 3 + 1)
    assert int(headers["content-length"]) == len(body)
    writer.close()


async def test_idle_connections_are_closed_and_those_that_wait_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.5)
    async with broker() as b:
        idle, _ = await connection_after(b, post("/ack", ACK))
        waiting, writer = await connection_after(b, post("/ack", ACK))
        b.engine.waits = True
        writer.write(post("/poll", WAIT))
        assert await ends(idle) == b""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting.read(1), 2.5)
        writer.close()


async def connection_after(b: Broker, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Returns a connection that has had an answer."""
    reader, writer = await connect(b)
    writer.write(request)
    assert (await answer(reader))[0] == 200
    return reader, writer


async def test_an_answer_that_fails_closes_its_connection(b: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError

    monkeypatch.setattr(protocol.BoundedProtocol, "_answer", fail)
    reader, writer = await connect(b)
    writer.write(post("/ack", ACK))
    status, headers, body = await answer(reader)
    assert (status, headers["connection"], json.loads(body)["code"]) == (500, "close", "error")
    assert await ends(reader) == b""
    writer.close()
