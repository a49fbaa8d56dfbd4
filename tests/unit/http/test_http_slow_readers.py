"""Clients that ask and do not read: their answers have a deadline, and a budget that leaves room for others."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest
from http_fake import DEAD, DEADLINE_S, Broker, answer, broker, head

from mqueue.broker.http import call, protocol
from tests.waiting import until

PAGE = [replace(DEAD, id=id, payload=b"x" * 2**18) for id in range(16)]  # 5.6 MiB in JSON: more than the buffers of two sockets


async def ask_and_do_not_read(b: Broker, path: str = "/dlq?topic=leads&limit=1000") -> socket.socket:
    """Returns the socket of a client that has asked. Its buffer is small."""
    mute = socket.socket()
    mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    host, port = b.server.url.removeprefix("http://").split(":")
    mute.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(mute, (host, int(port)))
    asked = len(b.engine.calls)
    await loop.sock_sendall(mute, head(path))
    await until(lambda: len(b.engine.calls) > asked, "the request has come")
    return mute


def connections(b: Broker) -> int:
    assert b.server._server is not None
    return len(b.server._server.server_state.connections)


async def test_who_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WRITE_S", 0.3, raising=False)
    async with broker() as b:
        b.engine.dead = PAGE
        mutes = [await ask_and_do_not_read(b) for _ in range(6)]
        await until(lambda: connections(b), "all are cut", DEADLINE_S, enough=lambda count: count == 0)
        counted = b'mqueue_http_requests_total{route="/dlq",status="498"} 6.0'
        await until(lambda: counted in b.metrics.render(), "they are counted", DEADLINE_S)
        assert (await b.get("/dlq?topic=leads"))[0] == 200
        for mute in mutes:
            mute.close()


async def test_large_answers_under_way_have_a_budget_and_a_namespace_has_half_of_it() -> None:
    async with broker() as b:
        b.engine.dead = PAGE
        mutes: list[Any] = []
        while (await b.get("/dlq?topic=leads&limit=1"))[0] == 200:
            mutes.append(await ask_and_do_not_read(b))
            assert len(mutes) * 2**22 <= call.ANSWERS_MAX
        status, problem, headers = await b.get("/dlq?topic=leads")
        assert (status, problem["code"], headers["retry-after"]) == (503, "unavailable", "1")
        assert (await b.get("/dlq?topic=leads&namespace=other"))[0] == 200
        assert (await b.get("/health"))[0] == 200
        assert (await b.post("/enqueue", [{"topic": "t"}]))[0] == 200
        for mute in mutes:
            mute.close()
        await until(lambda: b.get("/dlq?topic=leads"), "there is room again", DEADLINE_S, enough=lambda told: told[0] == 200)


async def test_who_reads_slowly_but_reads_has_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a wait that comes after a large answer is not taken for one that is not read."""
    monkeypatch.setattr(protocol, "WRITE_S", 1.5, raising=False)
    async with broker() as b:
        b.engine.dead = PAGE
        host, port = b.server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**16)
        writer.write(head("/dlq?topic=leads") + head("/dequeue?topic=t&wait=60"))
        b.engine.waits = True
        status, headers, body = await answer(reader)
        assert (status, len(body)) == (200, int(headers["content-length"]))
        await asyncio.wait_for(b.engine.waiting.wait(), DEADLINE_S)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 3.0)  # twice the deadline: the wait goes on
        writer.close()
