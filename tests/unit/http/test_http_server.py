"""The server's limits and its end: TLS, port 0, large and slow requests, clients that hang up, a graceful stop."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from http_fake import DEADLINE_S, Broker, FakeEngine, answer, bearer, broker, connect, ends, head

from mqueue.broker.http import HttpServer, protocol, server
from mqueue.broker.http.call import AnswerBudget, BodyBudget, Call
from mqueue.errors import Unavailable
from mqueue.message import BODY_MAX
from tests.waiting import until


@pytest.fixture
async def b() -> AsyncIterator[Broker]:
    async with broker() as running:
        yield running


async def test_port_0_is_reported_and_a_taken_port_is_an_error(b: Broker) -> None:
    port = int(b.server.url.rsplit(":", 1)[1])
    assert port > 0
    with pytest.raises(OSError, match="in use"):
        await HttpServer(FakeEngine(), "127.0.0.1", port).start()
    assert (await b.get("/health"))[0] == 200


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "http://127.0.0.1:5"), ("::", "http://[::1]:5"), ("a.b", "http://a.b:5")])
def test_urls_one_can_connect_to(host: str, shown: str) -> None:
    assert server._url("http", host, 5) == shown


def certificate(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return cert, key


async def test_tls_and_a_new_certificate(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    async with broker(tls=certificate(first, tmp_path)) as b:
        assert b.server.url.startswith("https://127.0.0.1:")

        async def status(authority: trustme.CA) -> int:
            context = ssl.create_default_context()
            authority.configure_trust(context)
            url = b.server.url + "/dequeue?topic=t"
            async with aiohttp.ClientSession() as http, http.get(url, ssl=context, headers=bearer()) as response:
                return response.status

        assert await status(first) == 200
        certificate(second, tmp_path)
        b.server.reload_certificate()
        assert await status(second) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status(first)
        with pytest.raises(aiohttp.ClientError):
            await b.http.get(b.server.url.replace("https", "http") + "/health")


async def test_tls_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await HttpServer(FakeEngine(), "127.0.0.1", 0, tls=(tmp_path / "no.pem", tmp_path / "no.key")).start()


async def test_a_declared_large_body_is_refused_at_once(b: Broker) -> None:
    reader, writer = await connect(b)
    writer.write(head("/enqueue", "POST", **{"Content-Length": str(BODY_MAX + 1), "Expect": "100-continue"}))
    status, _, body = await answer(reader)
    assert (status, json.loads(body)["code"]) == (413, "too-large")
    writer.close()


async def test_a_large_chunked_body_is_refused_and_the_connection_goes_on(b: Broker) -> None:
    reader, writer = await connect(b)
    writer.write(head("/enqueue", "POST", **{"Transfer-Encoding": "chunked"}))
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    for _ in range(9):
        writer.write(chunk)
        await writer.drain()
    writer.write(b"0\r\n\r\n" + head("/health"))
    status, _, body = await answer(reader)
    assert (status, json.loads(body)["code"]) == (413, "too-large")
    status, _, body = await answer(reader)
    assert (status, body) == (200, b"OK")
    assert b.engine.calls == []
    writer.close()


async def test_the_largest_body_is_taken(b: Broker) -> None:
    body = b'[{"topic":"t"}]'.rjust(BODY_MAX)
    status, _, _ = await b.ask("POST", "/enqueue", data=body, headers=bearer())
    assert status == 200


async def test_large_bodies_share_a_budget() -> None:
    budget = BodyBudget(100)
    more = {"type": "http.request", "body": b"x", "more_body": True}

    async def receive() -> dict[str, Any]:
        return more

    first = Call({"headers": [(b"content-length", b"80")]}, receive, budget, AnswerBudget())
    first._hold(80)
    second = Call({"headers": [(b"content-length", b"80")]}, receive, budget, AnswerBudget())
    with pytest.raises(Unavailable, match="large requests"):
        await second.skip_body()
    second.close()
    first.close()
    second._hold(80)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * 200_000,
        b"GET /health HTTP/1.1\r\nX: " + b"x" * 200_000,
        b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(101)) + b"\r\n",
    ],
    ids=["line", "header", "headers"],
)
async def test_header_limits(b: Broker, request_bytes: bytes) -> None:
    reader, writer = await connect(b)
    writer.write(request_bytes)
    status, headers, body = await answer(reader)
    assert (status, json.loads(body)["code"], headers["connection"]) == (431, "headers-too-large", "close")
    writer.close()


async def test_not_http(b: Broker) -> None:
    reader, writer = await connect(b)
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    status, headers, body = await answer(reader)
    assert (status, headers["content-type"], json.loads(body)["code"]) == (400, "application/problem+json", "invalid")
    assert await ends(reader) == b""
    writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"", None), (b"GET /hea", 408), (head("/enqueue", "POST", **{"Content-Length": "10"}) + b"[", 408)],
    ids=["nothing", "headers", "body"],
)
async def test_slow_requests_end(b: Broker, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: int | None) -> None:
    monkeypatch.setattr(protocol, "ARRIVE_S", 0.2)
    reader, writer = await connect(b)
    writer.write(sent)
    if status is not None:
        assert (await answer(reader))[0] == status
    assert await ends(reader) == b""
    assert b.engine.calls == []
    writer.close()


async def test_a_long_wait_is_not_a_slow_request(b: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """… nor is the request that was sent behind it."""
    monkeypatch.setattr(protocol, "ARRIVE_S", 0.2)
    b.engine.waits = True
    _, writer = await connect(b)
    writer.write(head("/dequeue?topic=t&wait=60") + b"GET /hea")
    await asyncio.wait_for(b.engine.waiting.wait(), DEADLINE_S)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(b.engine.cancelled.wait(), 2.5)  # slow ones are swept meanwhile
    writer.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("wait", [0, 60])
async def test_hanging_up_cancels_the_fetch(b: Broker, method: str, wait: int) -> None:
    """Also one that does not wait for a message: a shard that recovers answers after seconds."""
    b.engine.waits = True
    _, writer = await connect(b)
    if method == "GET":
        writer.write(head(f"/dequeue?topic=t&wait={wait}"))
    else:
        body = b'{"topics":["t"],"limit":1,"wait":%d}' % wait
        writer.write(head("/poll", "POST", **{"Content-Length": str(len(body))}) + body)
    await asyncio.wait_for(b.engine.waiting.wait(), DEADLINE_S)
    writer.close()
    await asyncio.wait_for(b.engine.cancelled.wait(), DEADLINE_S)
    await until(lambda: 'status="499"' in b.metrics.render().decode(), seconds=DEADLINE_S)


async def test_stop_ends_waiting_fetches_with_503(b: Broker) -> None:
    b.engine.waits = True
    waiting = asyncio.create_task(b.get("/dequeue?topic=t&wait=60"))
    await asyncio.wait_for(b.engine.waiting.wait(), DEADLINE_S)
    await asyncio.wait_for(b.server.stop(grace=60), DEADLINE_S)
    status, problem, headers = await waiting
    assert (status, problem["code"], headers["retry-after"]) == (503, "unavailable", "1")
    assert b.engine.cancelled.is_set()
    with pytest.raises(aiohttp.ClientConnectorError):
        await b.get("/health")
    await b.server.stop()


async def test_stop_lets_requests_finish(b: Broker) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def settle(settles: Any) -> list[str]:
        entered.set()
        await go.wait()
        return ["ok"]

    b.engine.settle = settle  # type: ignore[method-assign]
    asking = asyncio.create_task(b.post("/ack", {"id": 1, "topic": "t"}))
    await asyncio.wait_for(entered.wait(), DEADLINE_S)
    stopping = asyncio.create_task(b.server.stop(grace=60))
    await asyncio.sleep(0)
    go.set()
    assert (await asking)[:2] == (200, {"id": 1, "status": "ok"})
    await asyncio.wait_for(stopping, DEADLINE_S)


async def test_after_the_grace_the_rest_is_answered_503(b: Broker) -> None:
    entered = asyncio.Event()

    async def settle(settles: Any) -> list[str]:
        entered.set()
        await asyncio.Event().wait()
        return []

    b.engine.settle = settle  # type: ignore[method-assign]
    asking = asyncio.create_task(b.post("/ack", {"id": 1, "topic": "t"}))
    await asyncio.wait_for(entered.wait(), DEADLINE_S)
    await asyncio.wait_for(b.server.stop(grace=0.05), DEADLINE_S)
    status, problem, _ = await asking
    assert (status, problem["code"]) == (503, "unavailable")
