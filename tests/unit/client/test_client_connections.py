"""Both clients and their connections: what is cut is not sent twice, a call has its time in all, a closed client says
so.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from fake_broker import FakeBroker
from test_client_calls import Either

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.errors import Unavailable
from tests.waiting import wait_until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"
BOTH = pytest.mark.parametrize("kind", [Client, AsyncClient])


class Peer:
    """Accepts connections and reads requests. `answer`: what it sends to the nth one, counted from 1; None: it closes
    instead.
    """

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.requests: list[str] = []  # method and path
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._server, *self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                self.requests.append(" ".join(line.decode().split()[:2]))
                while lines.readline() not in (b"\r\n", b""):
                    pass
                if (answer := self._answer(len(self.requests))) is None:
                    return
                connection.sendall(answer)


@contextmanager
def peer(answer: Callable[[int], bytes | None]) -> Iterator[Peer]:
    made = Peer(answer)
    try:
        yield made
    finally:
        made.close()


CALLS: dict[str, Callable[[Any], Any]] = {
    "GET /dequeue": lambda client: client.fetch("t"),
    "PUT /schedules/s": lambda client: client.put_schedule("s", wire.ScheduleItem(topic="t", every=60)),
    "DELETE /schedules/s": lambda client: client.delete_schedule("s"),
}


@BOTH
@pytest.mark.parametrize("name", CALLS)
async def test_what_is_cut_on_a_kept_connection_is_not_sent_again_unasked(kind: type, name: str) -> None:
    """The first call leaves a connection open; the peer reads the next request on it, and hangs up. A fetch may have
    leased by then.
    """
    with peer(lambda count: ANSWER if count == 1 else None) as there:
        client = Either(kind(there.url, "t", retries=False))
        assert await client.fetch("t") == []
        with pytest.raises(Unavailable):
            await CALLS[name](client)
        await client.close()
    assert [request.partition("?")[0] for request in there.requests] == ["GET /dequeue", name]


@BOTH
async def test_its_timeout_is_that_of_the_whole_call_with_its_retries(kind: type, broker: FakeBroker) -> None:
    """However it fails: a broker that hangs, one that asks to come again, one that refuses fast."""
    client = Either(kind(broker.url, broker.token, timeout=0.5))
    broker.be_late(5)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await client.enqueue("t", b"")
    assert 0.4 < time.monotonic() - began < 4.5
    broker.be_late(0)
    broker.refuse("/enqueue", times=99, retry_after=1)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="refused on demand"):
        await client.enqueue("t", b"")
    assert time.monotonic() - began < 0.9, "no time is left for what would come after the pause"
    await client.close()


@BOTH
async def test_time_that_a_try_has_taken_is_gone_for_the_next(kind: type) -> None:
    answers = iter([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])

    def late(count: int) -> bytes | None:
        time.sleep(0.8 if count == 1 else 5)  # most of the time, then more than is left
        return next(answers, None)

    with peer(late) as there:
        client = Either(kind(there.url, "t", timeout=1.1, jitter=lambda: 0.0))
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await client.topics()
        assert 0.9 < time.monotonic() - began < 1.6
        await client.close()
    assert len(there.requests) == 2


@BOTH
async def test_a_fetch_waits_beyond_the_timeout_if_it_is_asked_to(kind: type, broker: FakeBroker) -> None:
    client = Either(kind(broker.url, broker.token, timeout=0.3))
    assert await client.fetch("t", wait=0.6) == []
    await client.close()


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        *({"timeout": wrong} for wrong in (0, float("nan"), float("inf"), None)),
        *({"connections": wrong} for wrong in (0, 65_536, None)),
    ],
)
def test_a_limit_that_is_none_is_refused(kind: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        kind("http://127.0.0.1:1", "t", **wrong)


def test_many_threads_keep_their_connections(broker: FakeBroker, caplog: pytest.LogCaptureFixture) -> None:
    """More at a time than a worker has threads by default."""
    caplog.set_level(logging.WARNING)
    with Client(broker.url, broker.token) as client:
        broker.hold("/enqueue")
        threads = [threading.Thread(target=client.enqueue, args=("t", b"")) for _ in range(40)]
        for thread in threads:
            thread.start()
        wait_until(lambda: broker.requests["/enqueue"], "all are under way", enough=lambda count: count == len(threads))
        broker.hold(None)
        for thread in threads:
            thread.join(10)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("urllib3")] == []


@BOTH
@pytest.mark.parametrize("batch", [False, True])
async def test_a_closed_client_says_so_at_once_and_opens_nothing(kind: type, batch: bool, broker: FakeBroker) -> None:
    made = kind(broker.url, broker.token, batch=batch, sleep=pytest.fail)
    client = Either(made)
    await client.enqueue("t", b"")
    await client.close()
    for call in (client.enqueue("t", b""), client.topics(), client.fetch("t"), client.enqueue_many([wire.EnqueueItem(topic="t")] * 2)):
        with pytest.raises(Unavailable, match="the client is closed"):
            await call
    assert await client.health() is False
    assert getattr(made, "_session", None) is None
    assert broker.requests == {"/enqueue": 1}
    await client.close()


async def test_closed_between_two_tries_it_opens_nothing_either(broker: FakeBroker) -> None:
    pausing, go_on = asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        pausing.set()
        await go_on.wait()

    client = AsyncClient(broker.url, broker.token, sleep=pause)
    broker.refuse("/enqueue")
    call = asyncio.create_task(client.enqueue("t", b""))
    await pausing.wait()
    await client.close()
    go_on.set()
    with pytest.raises(Unavailable, match="the client is closed"):
        await call
    assert client._session is None


def timed_out(count: int) -> bytes:
    """What a broker answers to a request that comes too slowly, once."""
    if count > 1:
        return ANSWER
    problem = msgspec.json.encode(wire.Problem(title="t", status=408, code="request-timeout", detail="too slow"))
    return b"HTTP/1.1 408 Request Timeout\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem)


@BOTH
async def test_a_request_that_came_too_slowly_is_sent_again_where_it_may_be(kind: type) -> None:
    with peer(timed_out) as there:
        client = Either(kind(there.url, "t", jitter=lambda: 0.0))
        assert await client.topics() == []
        await client.close()
    with peer(timed_out) as there:
        client = Either(kind(there.url, "t"))
        with pytest.raises(Unavailable, match="too slow") as caught:
            await client.fetch("t")
        assert caught.value.code == "request-timeout"
        await client.close()
    assert len(there.requests) == 1
