"""What an orchestrator sees of a worker: alive, ready as long as it can claim work, and why not."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from fake_broker import FakeBroker
from working import ask, working

from mqueue import wire
from mqueue.errors import Invalid, Unavailable
from mqueue.worker import status
from mqueue.worker.polling import reach
from mqueue.worker.polling.reach import Reach, fetchable
from mqueue.worker.program import probe
from mqueue.worker.program.probe import Probe, ProbeError
from mqueue.worker.runtime import Worker
from mqueue.worker.status import Status
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.watching import watchdog
from tests.waiting import until, wait_until


async def until_answer(port: int, status: int) -> str:
    """Waits until `/ready` answers so; returns the text."""
    _, text = await until(lambda: asyncio.to_thread(ask, port, "/ready"), f"/ready answers {status}", enough=lambda answer: answer[0] == status)
    return text


@asynccontextmanager
async def probed(app: MQueue, broker: FakeBroker, **options: Any) -> AsyncIterator[tuple[Worker, int]]:
    """A worker that is ready, and the port where its probe says so; which it does until the worker has stopped."""
    with ExitStack() as at_the_end:
        async with working(app, broker, **options) as worker:
            page = Probe("127.0.0.1", 0, {"/live": status.live, "/ready": lambda: status.ready([worker.status()])})
            page.start()
            at_the_end.callback(page.stop)
            await until_answer(page.port, 200)
            yield worker, page.port


def waits(broker: FakeBroker) -> int:
    """Polls that were to wait, so far."""
    return sum(poll.wait > 0 for poll in broker.polls)


# ── the pages ──

GOOD = Status(None, {"ack": 2, "nack": 1}, 1, 20)
BAD = Status("the worker stops", {"ack": 1}, 0, 20)


def test_ready_where_all_are_ready() -> None:
    assert status.ready([GOOD]) == (200, "ready\n")
    assert status.ready([BAD]) == (503, "not ready: the worker stops\n")
    assert status.ready([GOOD, BAD, BAD]) == (503, "not ready: the worker stops (2 of 3 processes)\n")
    assert status.ready([])[0] == 503


def test_metrics_add_up() -> None:
    code, text = status.metrics([GOOD, BAD], {"ack": 10})
    assert code == 200
    values = dict(line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    assert values == {
        'mqueue_worker_jobs_total{outcome="ack"}': "13",
        'mqueue_worker_jobs_total{outcome="nack"}': "1",
        "mqueue_worker_running": "1",
        "mqueue_worker_slots": "40",
        "mqueue_worker_processes": "2",
        "mqueue_worker_ready": "0",
    }


# ── the server ──


@pytest.fixture
def page() -> Iterator[Probe]:
    made = Probe("127.0.0.1", 0, {"/live": status.live, "/bad": lambda: status.ready([])})
    made.start()
    yield made
    made.stop()


def test_it_speaks_http(page: Probe) -> None:
    assert ask(page.port, "/live") == (200, "live\n")
    assert ask(page.port, "/live?x=1") == (200, "live\n")
    assert ask(page.port, "/live", "HEAD") == (200, "")
    assert ask(page.port, "/bad")[0] == 503
    assert ask(page.port, "/live", "POST")[0] == 405
    assert ask(page.port, "/other")[0] == 404


@pytest.mark.parametrize("sent", [b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000])
def test_what_is_no_request_is_cut_off(page: Probe, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        connection.sendall(sent)
        try:
            assert connection.recv(100).startswith(b"HTTP/1.1 400") or len(sent) > 1000
        except ConnectionError:
            pass
    assert ask(page.port, "/live")[0] == 200


def test_slow_and_many_connections_are_bounded(page: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "REQUEST_S", 0.2)
    monkeypatch.setattr(probe, "CONNECTIONS_MAX", 3)
    slow = [socket.create_connection(("127.0.0.1", page.port), timeout=10) for _ in range(5)]
    for connection in slow:
        assert connection.recv(1) == b""  # closed by the probe
        connection.close()
    assert ask(page.port, "/live")[0] == 200


def test_a_port_that_is_taken_is_told(page: Probe) -> None:
    with pytest.raises(ProbeError, match=f"cannot listen on 127.0.0.1 port {page.port}"):
        Probe("127.0.0.1", page.port, {}).start()


# ── what is known of the way to the broker ──


class Now:
    def __init__(self) -> None:
        self.seconds = 100.0

    def wall_us(self) -> int:
        raise AssertionError

    def monotonic(self) -> float:
        return self.seconds


async def test_polls_that_are_answered_keep_it_ready() -> None:
    now, errors = Now(), list[Exception]()
    known = Reach(now)

    async def poll(request: wire.Poll) -> wire.Polled:
        if errors:
            raise errors[0]
        return wire.Polled([], [])

    watched = known.watched(poll)
    assert known.problem() == "no poll has been answered yet"
    await watched(wire.Poll())
    assert known.problem() is None
    errors.append(Unavailable("gone fishing"))
    now.seconds += 1
    with pytest.raises(Unavailable):
        await watched(wire.Poll())
    assert known.problem() is None  # one failed poll is no broken path
    now.seconds += reach.SILENT_S
    told = known.problem()
    assert told is not None and told.startswith("no poll answered for 8 s: ") and told.endswith("gone fishing")
    errors[0] = Invalid("a settle of no use")
    with pytest.raises(Invalid):
        await watched(wire.Poll())
    assert known.problem() is not None
    errors.clear()
    await watched(wire.Poll())
    assert known.problem() is None


def test_shards_that_serve_no_fetch() -> None:
    def told(**shard: str) -> str | None:
        values = {"mode": "hot", "redis": "ok", "postgres": "ok", "wal": "ok", **shard}
        return fetchable(wire.Ready(status="ready", shards=[wire.ShardReady(shard=3, **values)]))  # type: ignore[arg-type]

    assert told() is None and told(wal="full") is None and told(postgres="unreachable") is None
    assert told(mode="recovering") == "the broker's shard 3 is recovering"
    assert told(mode="apart") is not None
    assert told(redis="full") is None and told(redis="unreachable") == "the broker's shard 3: Redis is unreachable"
    assert told(mode="cold", redis="unreachable") is None
    assert told(mode="cold", postgres="unreachable") is not None


# ── a worker ──


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times are a tenth of the real ones."""
    for name in ("CHECK_S", "AGAIN_S", "CHECK_TIMEOUT_S", "DOUBT_S", "SILENT_S"):
        monkeypatch.setattr(reach, name, getattr(reach, name) / 10)


@pytest.fixture
def idle(app: MQueue, soon: None) -> MQueue:
    """An app whose only task nobody enqueues."""
    app.task(topic="t")(lambda: None)
    return app


async def test_a_full_worker_is_ready_until_its_broker_is_not(app: MQueue, broker: FakeBroker, soon: None) -> None:
    gate, began = asyncio.Event(), asyncio.Event()

    @app.task(topic="t")
    async def long() -> None:
        began.set()
        await gate.wait()

    broker.enqueue([long.message()])
    async with probed(app, broker, concurrency=1) as (worker, port):
        await began.wait()
        polls = broker.requests["/poll"]
        await asyncio.sleep(1.5 * reach.SILENT_S)  # time itself is the condition
        await until_answer(port, 200)  # at once, but for a check that a busy machine answers late
        assert broker.requests["/poll"] > polls
        assert not [poll for poll in broker.polls[polls:] if poll.limit]  # it took nothing that it cannot run
        broker.mode = "recovering"
        assert "shard 0 is recovering" in await until_answer(port, 503)
        broker.mode = "hot"
        await until_answer(port, 200)
        await asyncio.to_thread(broker.server.down)
        assert "cannot reach the broker" in await until_answer(port, 503)
        assert ask(port, "/live")[0] == 200
        await asyncio.to_thread(broker.server.up)
        await until_answer(port, 200)
        worker.stop()
        assert ask(port, "/ready") == (503, "not ready: the worker stops\n")
        gate.set()


async def test_an_idle_worker_is_ready_soon_after_its_broker_is_back(idle: MQueue, broker: FakeBroker) -> None:
    async with probed(idle, broker) as (_, port):
        await asyncio.to_thread(broker.server.down)
        await until_answer(port, 503)
        await asyncio.to_thread(broker.server.up)
        await until_answer(port, 200)  # before a poll that waits would be answered


async def test_polls_that_wait_on_a_dead_connection_are_given_up(idle: MQueue, broker: FakeBroker) -> None:
    async with probed(idle, broker) as (_, port):
        before = waits(broker)
        broker.be_late(3600)  # it takes requests, and says nothing
        assert "did not answer a check" in await until_answer(port, 503)
        broker.be_late(0)
        await until_answer(port, 200)
        await until(lambda: waits(broker) > before)


async def test_polls_that_wait_go_on_where_the_broker_says_what_is_wrong(idle: MQueue, broker: FakeBroker) -> None:
    """A shard that recovers, perhaps one that this worker needs not: the connections are good. A poll given up may lose
    a message.
    """
    async with probed(idle, broker) as (_, port):
        before = waits(broker)
        broker.mode = "recovering"
        assert "shard 0 is recovering" in await until_answer(port, 503)
        checks = broker.requests["/ready"]
        await until(lambda: broker.requests["/ready"] > checks + 2)
        broker.mode = "hot"
        await until_answer(port, 200)
        assert waits(broker) == before


async def test_polls_that_fail_make_a_worker_unready_whatever_the_checks_say(idle: MQueue, broker: FakeBroker) -> None:
    async def fails(request: wire.Poll) -> wire.Polled:
        if request.limit:
            raise Unavailable("no fetch today")
        return wire.Polled([], [])

    async with probed(idle, broker) as (worker, port):
        worker._fetcher._poll = worker._reach.watched(fails)
        worker._fetcher.doubt()
        assert "no fetch today" in await until_answer(port, 503)


async def test_a_blocked_loop_does_not_keep_the_probe_from_saying_so(
    app: MQueue, broker: FakeBroker, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_S", 0.01)
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.2)
    seen: list[tuple[int, str]] = []
    free = threading.Event()

    @app.task(topic="t")
    async def blocks() -> None:
        free.wait(10)

    async with probed(app, broker) as (_, port):

        def look() -> None:
            try:
                blocked = wait_until(lambda: ask(port, "/ready"), "it says so", 9, enough=lambda answer: "loop is blocked" in answer[1])
                seen.extend([blocked, ask(port, "/live")])
            finally:
                free.set()

        looking = threading.Thread(target=look)
        looking.start()
        broker.enqueue([blocks.message()])
        await asyncio.to_thread(looking.join)
        await until_answer(port, 200)
    assert [status for status, _ in seen] == [503, 200]
