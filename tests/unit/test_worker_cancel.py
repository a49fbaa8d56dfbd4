"""Somebody cancels what a worker runs: on the loop, in a thread, in a process; before it is there, and while the broker
was away.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import process_jobs as jobs
import pytest
from fake_broker import FakeBroker
from working import working

from mqueue import MQueue, current
from mqueue.client import AsyncClient, Client
from tests.waiting import until, wait_until

LIMIT_S = 5.0  # a loaded machine; the promise is measured end to end


def kinds(broker: FakeBroker) -> list[str]:
    return [settle.kind for settle in broker.settled]


async def test_both_clients_cancel(app: MQueue, broker: FakeBroker) -> None:
    @app.task(topic="t")
    def job() -> None: ...

    first, second = job.enqueue().id, job.enqueue().id
    with Client(broker.url, broker.token) as client:
        assert (client.cancel(first).status, client.cancel(first).status) == ("cancelled", "gone")
        assert client.cancelled(["default"]).ids == []
    async with AsyncClient(broker.url, broker.token) as aio:
        assert (await aio.cancel(second)).status == "cancelled"


async def test_a_handler_on_the_loop_is_cancelled(app: MQueue, broker: FakeBroker) -> None:
    begun, cleaned_up = asyncio.Event(), asyncio.Event()

    @app.task(topic="t")
    async def job() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    id = (await job.enqueue_async()).id
    async with working(app, broker) as worker:
        await begun.wait()
        assert broker.cancel(id).status == "cancelling"
        await asyncio.wait_for(cleaned_up.wait(), LIMIT_S)
        await until(lambda: not broker.live())
        assert kinds(broker) == ["cancel"]
        assert worker.counts["cancel"] == 1 and not worker.counts["nack"]


async def test_one_that_returns_all_the_same_is_done(app: MQueue, broker: FakeBroker) -> None:
    begun = asyncio.Event()

    @app.task(topic="t")
    async def job() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

    id = (await job.enqueue_async()).id
    async with working(app, broker):
        await begun.wait()
        broker.cancel(id)
        await until(lambda: not broker.live())
    assert kinds(broker) == ["ack"]


async def test_a_thread_can_see_it(app: MQueue, broker: FakeBroker) -> None:
    begun = threading.Event()

    @app.task(topic="t")
    def job() -> None:
        begun.set()
        wait_until(lambda: current().cancelled)
        raise InterruptedError("half done")

    id = (await job.enqueue_async()).id
    async with working(app, broker):
        await until(begun.is_set)
        broker.cancel(id)
        await until(lambda: not broker.live(), seconds=LIMIT_S)
    assert kinds(broker) == ["cancel"]


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["", "in the background of a script"])
def interrupts(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the worker has for SIGINT; its processes begin with it, too."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stubborn", [False, True], ids=["cleans up", "must be killed"])
async def test_a_process_is_asked_and_then_killed(broker: FakeBroker, tmp_path: Path, stubborn: bool, interrupts: None) -> None:
    jobs.app.producer.connect(broker.url, broker.token)
    out = tmp_path / "out"
    id = (await jobs.until_interrupted.enqueue_async(str(out), stubborn)).id
    async with working(jobs.app, broker):
        await until(lambda: out.exists() and "begun" in out.read_text(), seconds=30)
        broker.cancel(id)
        await until(lambda: not broker.live(), seconds=LIMIT_S)
    assert kinds(broker) == ["cancel"]
    assert ("cleaned up" in out.read_text()) is not stubborn


async def test_a_process_that_cannot_be_given_time_is_killed(broker: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next cancellation is heard of."""

    class None_(threading.Timer):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    jobs.app.producer.connect(broker.url, broker.token)
    async with working(jobs.app, broker):
        for number in range(2):
            out = tmp_path / f"out{number}"
            id = (await jobs.until_interrupted.enqueue_async(str(out), True)).id
            await until(lambda out=out: out.exists() and "begun" in out.read_text(), seconds=30)  # type: ignore[misc]
            with monkeypatch.context() as patch:
                patch.setattr(threading, "Timer", None_)
                broker.cancel(id)
                await until(lambda: not broker.live(), seconds=LIMIT_S)
    assert kinds(broker) == ["cancel", "cancel"]


async def test_other_jobs_go_on(app: MQueue, broker: FakeBroker) -> None:
    begun, goes_on = [], asyncio.Event()

    @app.task(topic="t")
    async def job() -> None:
        begun.append(current().id)
        await goes_on.wait()

    first, second = (await job.enqueue_async()).id, (await job.enqueue_async()).id
    async with working(app, broker):
        await until(lambda: len(begun) == 2)
        broker.cancel(first)
        await until(lambda: first not in broker.messages)
        goes_on.set()
        await until(lambda: not broker.live())
    assert {settle.id: settle.kind for settle in broker.settled} == {first: "cancel", second: "ack"}


async def test_a_batch_goes_on_for_its_other_items(app: MQueue, broker: FakeBroker) -> None:
    begun, seen, goes_on = asyncio.Event(), [], asyncio.Event()

    @app.task(topic="t", batch=3, batch_wait=5)
    async def job(items: list[int]) -> list[Exception | None]:
        begun.set()
        await goes_on.wait()
        seen.extend(each.cancelled for each in current().batch)
        return [ValueError("no"), None, None]

    ids = [(await job.enqueue_async(n)).id for n in range(3)]
    async with working(app, broker) as worker:
        await begun.wait()
        broker.cancel(ids[0])
        await until(lambda: worker._cancellations.has(ids[0]))
        goes_on.set()
        await until(lambda: not broker.live())
    assert seen == [True, False, False]
    assert [settle.kind for settle in sorted(broker.settled, key=lambda s: s.id)] == ["cancel", "ack", "ack"]


async def test_a_batch_of_which_all_are_cancelled_is_cancelled(app: MQueue, broker: FakeBroker) -> None:
    begun = asyncio.Event()

    @app.task(topic="t", batch=2, batch_wait=5)
    async def job(items: list[int]) -> None:
        begun.set()
        await asyncio.Event().wait()

    ids = [(await job.enqueue_async(n)).id for n in range(2)]
    async with working(app, broker):
        await begun.wait()
        for id in ids:
            broker.cancel(id)
        await until(lambda: not broker.live())
    assert kinds(broker) == ["cancel", "cancel"]


async def test_one_that_is_cancelled_while_its_delivery_is_on_the_way_does_not_begin(app: MQueue, broker: FakeBroker) -> None:
    ran = []
    begun, goes_on = asyncio.Event(), asyncio.Event()

    @app.task(topic="t")
    async def job() -> None:
        begun.set()
        await goes_on.wait()

    @app.task(topic="t")
    async def late() -> None:
        ran.append(1)

    following = (await job.enqueue_async()).id + 1
    async with working(app, broker) as worker:
        await begun.wait()
        broker.tell_cancelled(following)
        await until(lambda: worker._cancellations.has(following))
        await late.enqueue_async()
        await until(lambda: len(broker.live()) == 1)
        goes_on.set()
        await until(lambda: not broker.live())
    assert not ran
    assert sorted(kinds(broker)) == ["ack", "cancel"]


async def test_it_asks_again_when_the_broker_was_away(app: MQueue, broker: FakeBroker) -> None:
    begun = asyncio.Event()

    @app.task(topic="t")
    async def job() -> None:
        begun.set()
        await asyncio.Event().wait()

    broker.refuse("/cancelled", times=3)
    id = (await job.enqueue_async()).id
    async with working(app, broker):
        await begun.wait()
        broker.cancel(id)
        await until(lambda: not broker.live())
    assert kinds(broker) == ["cancel"] and broker.requests["/cancelled"] >= 4


async def test_an_idle_worker_does_not_ask(app: MQueue, broker: FakeBroker) -> None:
    @app.task(topic="t")
    async def job() -> None: ...

    async with working(app, broker):
        await until(lambda: broker.waiting)
    assert broker.requests["/cancelled"] == 0
