"""Results: typed there and back, from loop, threads and processes; what cannot be kept; what a handle says while there
is none.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import process_jobs as jobs
import pytest
from fake_broker import FakeBroker, start
from working import working

from mqueue import Handle, JobFailed, MQueue, NoResult, wire
from mqueue.client import Client
from mqueue.errors import NotFound, Pending, Unavailable
from mqueue.worker.arguments.codec import BadResult, Shape
from mqueue.worker.running.outcome import Outcome
from mqueue.worker.tasks.handle import ANSWER_S, AWAY_S, Wait
from tests.waiting import until


@dataclass
class Invoice:
    number: int
    total: Decimal
    at: datetime
    parts: list[bytes]


INVOICE = Invoice(7, Decimal("19.90"), datetime(2030, 1, 1, tzinfo=UTC), [b"\x00\xff"])


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with start() as broker:
        yield broker


async def test_results_come_back_in_the_type_of_the_annotation(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token)

    @app.task(result=True, result_ttl=60)
    async def looped(number: int) -> Invoice:
        return Invoice(number, INVOICE.total, INVOICE.at, INVOICE.parts)

    @app.task(result=True)
    def threaded(id: UUID) -> dict[UUID, tuple[int, ...]]:
        return {id: (1, 2)}

    @app.task(result=True)
    def nothing() -> None: ...

    @app.task(result=True)
    async def bare(x: int):  # type: ignore[no-untyped-def]
        return {"x": [x, None]}

    id = UUID(int=5)
    async with working(app, broker):
        assert await (await looped.enqueue_async(7)).result_async(10) == INVOICE
        assert await (await threaded.enqueue_async(id)).result_async(10) == {id: (1, 2)}
        assert await (await nothing.enqueue_async()).result_async(10) is None
        assert await (await bare.enqueue_async(1)).result_async(10) == {"x": [1, None]}
        [first, second] = await app.enqueue_many_async([looped.message(7), threaded.message(id)])
        assert (await first.result_async(10), await second.result_async(10)) == (INVOICE, {id: (1, 2)})
    assert {s.result_ttl for s in broker.settled} == {60, 3600}


async def test_results_of_processes_come_back_too(broker: FakeBroker) -> None:
    [id, much] = broker.enqueue([jobs.total.message([Decimal("1.5"), Decimal(2)]), jobs.long_text.message()])
    async with working(jobs.app, broker):
        await until(lambda: not broker.live())
    assert broker.result(id) == b'{"total":"3.5"}'
    assert broker.messages[much].error == "the result of long_text takes 2,000,002 bytes, 1,048,576 are allowed"


async def test_a_result_that_cannot_be_kept_fails_the_job_at_once(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token)

    @app.task(result=True)
    def no_json() -> object:
        return object()

    @app.task(result=True)
    async def other() -> int:
        return "five"  # type: ignore[return-value]

    @app.task(result=True)
    async def nan() -> float:
        return float("nan")

    async with working(app, broker):
        handles: list[Handle[Any]] = [await task.enqueue_async() for task in (no_json, other, nan)]
        for handle, words in zip(handles, ("has no JSON form", "Expected `int`, got `str`", "nan has no JSON form"), strict=True):
            with pytest.raises(JobFailed, match=words):
                await handle.result_async(10)
    assert [s.attempts for s in broker.dead()] == [1, 1, 1] and not any(s.result for s in broker.settled)


async def test_a_result_too_large_for_this_broker_makes_a_dead_letter_that_says_so(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token)
    broker.result_max = 100

    @app.task(result=True)
    async def text(size: int) -> str:
        return "x" * size

    async with working(app, broker, concurrency=4) as worker:
        small, large = await app.enqueue_many_async([text.message(10), text.message(200)])
        with pytest.raises(JobFailed, match="a result may have 100 bytes"):
            await large.result_async(10)
        assert await small.result_async(10) == "x" * 10
        await until(lambda: worker.counts["ack"] == 2)


async def test_a_result_that_the_broker_could_not_take_is_sent_again(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token)

    @app.task(result=True)
    async def five(cut: bool) -> int:
        if cut:
            broker.cut_after_work("/poll")  # the only slot is taken: the next poll is that of the settle
        else:
            broker.refuse("/poll", 2)
        return 5

    async with working(app, broker, concurrency=1, jitter=lambda: 0.0):
        for cut in (True, False):
            assert await (await five.enqueue_async(cut)).result_async(10) == 5
            await until(lambda: not any(refusal.times for refusal in broker.refusals))
        # three, but where the cut met a poll that is a check of the worker's and settles nothing
        await until(lambda: len(broker.settled) in (2, 3))
    assert not broker.live()


def test_a_handle_waits_and_says_why_there_is_nothing(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token)

    @app.task(topic="t", result=True)
    def kept() -> int:
        return 1

    @app.task(topic="t")
    def dropped() -> int:
        return 1

    handle, failing = kept.enqueue(), kept.enqueue()
    with pytest.raises(TimeoutError, match=r"no result after 0\.05 s"):
        handle.result(timeout=0.05)
    with pytest.raises(NoResult, match="result=True"):
        dropped.enqueue().result()
    with pytest.raises(NotFound):
        kept.handle(5).result()
    status = handle.status()
    assert status is not None and (status.state, status.topic) == ("ready", "t")
    assert kept.handle(5).status() is None
    with Client(broker.url, broker.token) as client:
        done, failed = client.fetch("t", limit=2)
        threading.Timer(0.1, lambda: client.poll(wire.Poll(settle=[Outcome("ack", result=b"41").settle(done)]))).start()
        assert handle.result(10) == 41
        client.poll(wire.Poll(settle=[Outcome("bury", "ValueError: no").settle(failed)]))
    with pytest.raises(JobFailed, match="ValueError: no"):
        failing.result(10)


def test_a_handle_waits_for_a_broker_that_is_away() -> None:
    app = MQueue("http://127.0.0.1:1")

    @app.task(result=True)
    def kept() -> int:
        return 1

    away = Unavailable("away")
    assert Wait(kept.handle(5), 60).pause_s(away) == AWAY_S
    assert Wait(kept.handle(5), 60).pause_s(Pending()) == 0
    for timeout in (0.0, None):
        with pytest.raises(Unavailable):
            Wait(kept.handle(5), timeout).pause_s(away)


def test_handles_are_equal_by_id_and_can_be_made_again() -> None:
    app = MQueue("http://127.0.0.1:1", namespace="shop")

    @app.task(topic="t", name="n")
    def one() -> int:
        return 1

    assert one.handle(5) == one.handle(5) != one.handle(6)
    assert len({one.handle(5), one.handle(5), one.handle(6)}) == 2
    assert repr(one.handle(5)) == "<handle 5 n>"
    assert one.handle(5).name == ("shop", "t") and one.options(namespace="other").handle(5).name == ("other", "t")
    assert one.handle(5) != 5


@pytest.mark.parametrize("options", [{"result_ttl": 5}, {"result": True, "result_ttl": 0}, {"result": True, "result_ttl": 1e9}])
def test_a_ttl_needs_a_result_and_a_length(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="result_ttl"):
        MQueue().task(**options)


def test_what_comes_back_otherwise_is_told() -> None:
    def count() -> int: ...

    assert Shape(count).unpack_result(b"5") == 5
    with pytest.raises(TypeError, match=r"is not what .*count returns"):
        Shape(count).unpack_result(b'"many"')
    with pytest.raises(BadResult):
        Shape(count).pack_result("5")


async def test_a_task_without_result_sends_none(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token)

    @app.task
    async def one() -> int:
        return 1

    async with working(app, broker):
        await one.enqueue_async()
        await until(lambda: broker.settled)
        await asyncio.sleep(0)
    assert [s.result for s in broker.settled] == [None]


@pytest.fixture
def mute() -> Iterator[str]:
    """The URL of a broker that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_a_broker_that_does_not_answer_costs_a_second_at_most(mute: str) -> None:
    app = MQueue(mute, "token")

    @app.task(result=True)
    def unheard() -> None: ...

    began = time.monotonic()
    with pytest.raises(Unavailable):
        await unheard.handle(7).result_async(0.1)
    with pytest.raises(Unavailable):
        await asyncio.to_thread(unheard.handle(7).result, 0.1)
    assert time.monotonic() - began < 2 * (0.1 + ANSWER_S) + 1
