"""A worker that renews late fetches less for a while."""

import asyncio

import pytest
from fake_broker import FakeBroker
from structlog.testing import CapturingLogger
from working import working

from mqueue import MQueue
from mqueue.worker.polling import fetcher
from mqueue.worker.polling.pace import GROW_S, SAME_S, Pace
from tests.waiting import until


def test_the_slots_are_halved_once_for_what_was_fetched_together() -> None:
    pace = Pace(100)
    assert (pace.late(10), pace.late(10 + SAME_S / 2), pace.limit(10)) == (True, False, 50)
    assert (pace.late(10 + SAME_S), pace.limit(10 + SAME_S)) == (True, 25)


def test_one_slot_is_always_left() -> None:
    pace = Pace(3)
    for second in range(1, 10):
        pace.late(second * SAME_S)
    assert pace.limit(9 * SAME_S) == 1


def test_they_double_until_all_are_there() -> None:
    pace = Pace(12)
    pace.late(0), pace.late(SAME_S)
    assert [pace.limit(SAME_S + n * GROW_S) for n in range(4)] == [3, 6, 12, 12]
    assert [pace.recovered(SAME_S + n * GROW_S) for n in range(4)] == [False, False, True, False]
    assert pace.limit(1e9) == 12


async def test_a_worker_whose_renewals_come_late_fetches_less(
    app: MQueue,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, said = asyncio.Event(), CapturingLogger()
    monkeypatch.setattr(fetcher, "log", said)  # where the lines go depends on who configured structlog before

    @app.task(topic="t", lease=1)
    async def slow() -> None:
        await gate.wait()

    broker.enqueue([slow.message() for _ in range(8)])
    async with working(app, broker, concurrency=8):
        await until(lambda: broker.extends)
        broker.late_s = 0.8  # longer than what is left of a lease
        await until(lambda: any("fewer jobs are fetched" in call.args[0] for call in said.calls), "the worker says so")
        broker.late_s, asked = 0.0, len(broker.polls)
        gate.set()
        limits = await until(lambda: [poll.limit for poll in broker.polls[asked:] if poll.wait])
    assert max(limits) <= 4
