"""Our own few lines of HTTP and the libraries carry a call to the same end, whatever the server does."""

import asyncio
import inspect
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.errors import MQueueError, TooLarge, Unavailable
from tests.odd_server import (
    EMPTY_LIST,
    OK,
    Line,
    OddServer,
    hangs_up,
    odd_server,
    says,
    says_and_hangs_up,
    says_and_resets,
)
from tests.waiting import until

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n[\r\n1\r\n]\r\n0\r\n"
CLOSING = EMPTY_LIST.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")


@pytest.fixture(params=["lean", "library"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MQUEUE_TRANSPORT", request.param)
    return request.param


@pytest.fixture(params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> type:
    return request.param


async def ask(client: Any, name: str, *args: Any) -> Any:
    """Calls the method, of whichever client. Returns what it does, or the error."""
    method = getattr(client, name)
    try:
        return await (method(*args) if inspect.iscoroutinefunction(method) else asyncio.to_thread(method, *args))
    except MQueueError as error:
        return error


async def fetched(kind: type, server: OddServer, calls: int = 2) -> list[Any]:
    """Returns the answers to so many fetches, each an error or a list."""
    client = kind(server.url, "t", retries=False, timeout=5)
    found = [await ask(client, "fetch", "t") for _ in range(calls)]
    await ask(client, "close")
    return found


def slowly(line: Line, head: bytes) -> None:
    for place in range(len(EMPTY_LIST)):
        line.send(EMPTY_LIST[place : place + 1])
        time.sleep(0.001)  # else the pieces come together


FINE = {
    "kept": (says(EMPTY_LIST), 1),
    "in pieces": (slowly, 1),
    "chunked": (says(CHUNKED + b"\r\n"), 1),
    "continue": (says(b"HTTP/1.1 100 Continue\r\n\r\n" + EMPTY_LIST), 1),
    "it will close": (says_and_hangs_up(CLOSING), 2),
    "of HTTP/1.0": (says_and_hangs_up(EMPTY_LIST.replace(b"1.1", b"1.0")), 2),
    "until it ends": (says_and_hangs_up(OK + b"\r\n[]"), 2),
    "trailers": (says(CHUNKED + b"A: b\r\nC: d\r\n\r\n"), None),
    "another answer behind it": (says(EMPTY_LIST * 2), None),
}

ODD = {
    "no answer": hangs_up,
    "a reset": says_and_resets(b""),
    "half a head": says_and_hangs_up(EMPTY_LIST[:30]),
    "half a body": says_and_hangs_up(EMPTY_LIST[:-1]),
    "half a body, and a reset": says_and_resets(EMPTY_LIST[:-1]),
    "half a chunk": says_and_hangs_up(CHUNKED[:-9]),
    "no last chunk": says_and_hangs_up(CHUNKED[:-3]),
    "a huge header": says(OK + b"X: " + b"x" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n[]"),
    "no HTTP": says_and_hangs_up(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "something else": says(OK + b"Content-Length: 7\r\n\r\n<html/>"),
    "no length that is one": says_and_hangs_up(OK + b"Content-Length: 2, 3\r\n\r\n[]"),
}

PROBLEM = b'{"title":"t","status":503,"code":"unavailable","detail":"busy"}'

REFUSED = {
    "nothing to say": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), "HTTP 204", None),
    "a redirect": (says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), "HTTP 302", None),
    "a gateway": (says(b"HTTP/1.1 502 Bad Gateway\r\nretry-AFTER: 3\r\nContent-Length: 3\r\n\r\nbad"), "HTTP 502: bad", 3),
    "a problem": (says(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: %d\r\n\r\n%s" % (len(PROBLEM), PROBLEM)), "busy", 2),
}


@pytest.mark.parametrize("name", FINE)
async def test_an_answer_that_is_one(kind: type, name: str) -> None:
    answer, lines = FINE[name]
    with odd_server(answer) as server:
        assert await fetched(kind, server) == [[], []]
        assert len(server.heads) == 2
        assert lines is None or len(server.lines) == lines


@pytest.mark.parametrize("name", ODD)
async def test_an_answer_that_is_none(kind: type, name: str, transport: str) -> None:
    """The request is not sent again, and the next one has a connection of its own."""
    with odd_server(ODD[name], says(EMPTY_LIST)) as server:
        failed, then = await fetched(kind, server)
        assert type(failed) is Unavailable
        if name != "something else" and (name, transport) != ("half a head", "library"):  # urllib3 takes it for a head
            assert str(failed).startswith(f"cannot reach the broker at {server.url}: ")
        assert then == []
        assert len(server.heads) == 2


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal(kind: type, name: str) -> None:
    answer, detail, retry_after = REFUSED[name]
    with odd_server(answer) as server:
        first, second = await fetched(kind, server)
        assert (first.detail, first.retry_after, type(first)) == (detail, retry_after, type(second))
        assert len(server.lines) == 1


async def test_garbage_behind_an_answer(kind: type, transport: str) -> None:
    """The answer counts, but for aiohttp, and the connection is not used again, but by urllib3."""
    with odd_server(says(EMPTY_LIST + b"more")) as server:
        found = await fetched(kind, server)
        assert len(server.lines) == (1 if (kind, transport) == (Client, "library") else 2)
        assert [type(one) for one in found] == [Unavailable if (kind, transport) == (AsyncClient, "library") else list] * 2


async def test_an_answer_before_the_request_is_whole(kind: type) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with odd_server(says(refusal), early=True) as server:
        client = kind(server.url, "t", retries=False, timeout=5)
        items = [wire.EnqueueItem(topic="t", payload=b"x" * 250_000)] * 20
        assert type(await ask(client, "enqueue_many", items)) is TooLarge
        await ask(client, "close")


async def test_a_connection_that_was_closed_while_idle_is_not_used(kind: type) -> None:
    with odd_server(says_and_hangs_up(EMPTY_LIST), says(EMPTY_LIST)) as server:
        client = kind(server.url, "t", retries=False, timeout=5)
        assert await ask(client, "fetch", "t") == []
        await until(lambda: server.ended, "the server has hung up")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await ask(client, "fetch", "t") == []
        assert len(server.lines) == len(server.heads) == 2
        await ask(client, "close")


async def test_it_has_its_time_and_no_more(kind: type) -> None:
    def never(line: Line, head: bytes) -> None:
        line.gone.wait(20)

    with odd_server(never) as server:
        client = kind(server.url, "t", retries=False, timeout=0.3)
        began = time.monotonic()
        assert type(await ask(client, "fetch", "t")) is Unavailable
        assert 0.25 < time.monotonic() - began < 4
        await ask(client, "close")


async def test_nobody_listens(kind: type) -> None:
    with odd_server(hangs_up) as server:
        pass
    [failed] = await fetched(kind, server, 1)
    assert type(failed) is Unavailable
    assert str(failed).startswith(f"cannot reach the broker at {server.url}: ")


# ── TLS ──


def tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


@pytest.mark.parametrize("answer", [says(EMPTY_LIST), slowly, says(CHUNKED + b"\r\n")])
async def test_a_certificate_of_the_hosts(kind: type, authority: trustme.CA, answer: Any) -> None:
    with odd_server(answer, tls=tls(authority, "127.0.0.1")) as server:
        assert await fetched(kind, server, 3) == [[], [], []]
        assert len(server.lines) == 1


async def test_a_large_request_and_a_large_answer_over_tls(kind: type, authority: trustme.CA) -> None:
    ids = b"HTTP/1.1 200 OK\r\nContent-Length: 50003\r\n\r\n\xdc\xc3\x50" + b"\x07" * 50_000
    with odd_server(says(ids), tls=tls(authority, "127.0.0.1")) as server:
        client = kind(server.url, "t", retries=False, timeout=15)
        assert await ask(client, "enqueue_many", [wire.EnqueueItem(topic="t", payload=b"x" * 250_000)] * 20) == [7] * 50_000
        await ask(client, "close")


async def test_a_certificate_of_another_host(kind: type, authority: trustme.CA) -> None:
    with odd_server(says(EMPTY_LIST), tls=tls(authority, "localhost")) as server:
        [failed] = await fetched(kind, server, 1)
        assert type(failed) is Unavailable
        assert "certificate" in str(failed).lower()
        assert server.heads == []


async def test_a_certificate_that_nobody_trusts(kind: type, authority: trustme.CA) -> None:
    with odd_server(says(EMPTY_LIST), tls=tls(trustme.CA(), "127.0.0.1")) as server:
        [failed] = await fetched(kind, server, 1)
        assert type(failed) is Unavailable
        assert "certificate" in str(failed).lower()
        assert server.heads == []
