"""A loop that does not turn is noticed, and what was handed over meanwhile is not begun."""

import asyncio
import time

import pytest
from fake_broker import FakeBroker
from working import working

from mqueue import wire
from mqueue.worker.polling import absence
from mqueue.worker.polling.absence import TURN_S, Absence
from mqueue.worker.tasks.app import MQueue
from tests.waiting import until


async def test_an_absence_counts_for_what_was_under_way_then() -> None:
    now = 100.0
    watch = Absence(asyncio.get_running_loop(), lambda: now)
    assert watch.longest_s(100.0) == 0
    now = 100.0 + 2 * TURN_S
    assert watch.longest_s(100.0) == 0, "a turn that is a bit late"
    now = 109.0
    assert watch.longest_s(100.0) == pytest.approx(9.0 - TURN_S), "before the timer knows of it"
    watch._turn()
    watch.stop()
    now = 109.1
    assert watch.longest_s(105.0) == pytest.approx(9.0 - TURN_S)
    assert watch.longest_s(109.05) == 0


@pytest.mark.parametrize("settled", [False, True])
async def test_what_comes_while_the_loop_is_blocked_goes_back(broker: FakeBroker, settled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`settled`: another worker has run it meanwhile."""
    monkeypatch.setattr(absence, "TURN_S", 0.05)
    app = MQueue(broker.url, broker.token)
    ran: list[int] = []

    @app.task(topic="t")
    async def run(n: int) -> None:
        ran.append(n)

    async with working(app, broker, concurrency=2):
        await until(lambda: broker.waiting)
        [id] = broker.enqueue([run.options(lease=1).message(1)])
        time.sleep(0.5)  # the loop is blocked while the poll that waits is answered
        if settled:
            broker.settle([("ack", wire.SettleItem(id=id, topic="t"))])
        await until(lambda: any(settle.kind == "release" for settle in broker.settled))
        await until(lambda: not broker.live())
        await asyncio.sleep(0.1)  # what came twice would have run by now
    assert ran == ([] if settled else [1])


async def test_a_short_one_matters_to_nobody(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "TURN_S", 0.05)
    app = MQueue(broker.url, broker.token)
    app.task(topic="t", name="run")(lambda: None)
    async with working(app, broker, concurrency=2):
        await until(lambda: broker.waiting)
        broker.enqueue([app.get("run").message()])
        time.sleep(0.5)  # of the default lease
        await until(lambda: not broker.live())
    assert {settle.kind for settle in broker.settled} == {"ack"}


async def test_a_batch_that_was_gathered_before_goes_back(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "TURN_S", 0.05)
    app = MQueue(broker.url, broker.token)
    ran: list[list[int]] = []

    @app.task(topic="t", batch=2, batch_wait=0.7, lease=1)
    async def run(items: list[int]) -> None:
        ran.append(items)

    async with working(app, broker) as worker:
        await until(lambda: broker.waiting)
        broker.enqueue([run.message(1)])
        await until(lambda: any(worker._gatherer._open.values()))
        time.sleep(0.6)  # the loop is blocked for longer than half of the lease
        await until(lambda: not broker.live())
    assert ran == [[1]]
    assert [settle.kind for settle in broker.settled] == ["release", "ack"]
