"""`max_run_time`: what runs for too long is given up: on the loop, in a thread, and though it blocks the loop."""

import asyncio
import threading
import time

import pytest
from fake_broker import FakeBroker
from working import working

from mqueue import Retry, current
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.job import Job
from mqueue.worker.tasks.signals import TimeLimit
from mqueue.worker.watching.heartbeat import Heartbeat
from tests.waiting import until, wait_until

LEASE_S = 1.0


@pytest.fixture
def app(broker: FakeBroker) -> MQueue:
    return MQueue(broker.url, broker.token)


async def test_a_handler_on_the_loop_is_cancelled_and_the_job_has_failed(app: MQueue, broker: FakeBroker) -> None:
    cleaned: list[int] = []

    @app.task(topic="t", max_run_time=0.2, max_retries=1, retry=Retry(base=0.05))
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(current().attempt)

    broker.enqueue([hang.message()])
    began = time.monotonic()
    async with working(app, broker):
        await until(broker.dead)
    assert 0.4 <= time.monotonic() - began < 5
    [dead] = broker.dead()
    assert dead.error is not None and dead.error.endswith("TimeLimit: the job ran longer than its max_run_time=0.2 s: it was cancelled")
    assert cleaned == [1, 2]


async def test_a_policy_may_name_it(app: MQueue, broker: FakeBroker) -> None:
    @app.task(topic="t", max_run_time=0.1, retry=Retry(never=(TimeLimit,)))
    async def hang() -> None:
        await asyncio.Event().wait()

    broker.enqueue([hang.message()])
    async with working(app, broker):
        await until(broker.dead)
    assert [settle.kind for settle in broker.settled] == ["bury"]


async def test_a_thread_may_look_and_loses_its_lease_if_it_does_not(app: MQueue, broker: FakeBroker) -> None:
    end = threading.Event()
    begun: list[int] = []

    @app.task(topic="t", max_run_time=0.2, lease=LEASE_S, max_retries=5)
    def look() -> None:
        begun.append(current().attempt)
        if len(begun) == 1:
            wait_until(lambda: current().cancelled)
            raise ValueError("gave up")

    @app.task(topic="t", max_run_time=0.2, lease=LEASE_S, max_retries=5)
    def hang() -> None:
        begun.append(100 + current().attempt)
        if current().attempt == 1:
            end.wait(30)

    broker.enqueue([look.message()])
    async with working(app, broker):
        await until(lambda: not broker.live())
        assert begun == [1, 2] and "TimeLimit" in str(next(s.error for s in broker.settled if s.kind == "nack"))
        began = time.monotonic()
        broker.enqueue([hang.message()])
        await until(lambda: not broker.live())
        assert LEASE_S <= time.monotonic() - began < LEASE_S + 4
        end.set()
        await until(lambda: len(broker.settled) == 4)
    assert begun[2:] == [101, 102]


async def test_one_that_blocks_the_loop_loses_its_lease(app: MQueue, broker: FakeBroker) -> None:
    free: list[bool] = []

    @app.task(topic="t", max_run_time=0.2, lease=LEASE_S)
    async def block() -> None:
        wait_until(lambda: all(stored.until_us < broker.clock.wall_us() for stored in broker.live()))
        free.append(True)

    broker.enqueue([block.message()])
    async with working(app, broker):
        await until(lambda: free, seconds=20)


async def test_one_that_ends_in_time_is_let_be(app: MQueue, broker: FakeBroker) -> None:
    @app.task(topic="t", max_run_time=5)
    async def quick() -> None:
        await asyncio.sleep(0)

    broker.enqueue([quick.message() for _ in range(5)])
    async with working(app, broker):
        await until(lambda: not broker.live())
    assert {settle.kind for settle in broker.settled} == {"ack"}


async def test_a_batch_is_cancelled_once(app: MQueue, broker: FakeBroker) -> None:
    cleaned: list[str] = []

    @app.task(topic="b", batch=3, batch_wait=1, max_run_time=0.2, max_retries=0)
    async def hang(items: list[int]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)  # a second cancellation would end this
            cleaned.append("up")
            raise

    broker.enqueue([hang.message(n) for n in range(3)])
    async with working(app, broker):
        await until(lambda: len(broker.dead()) == 3)
    assert cleaned == ["up"]


async def test_all_of_a_batch_ran_for_too_long_though_one_was_told_first(
    app: MQueue, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, limited = Heartbeat.limit, []

    def limit_one(self: Heartbeat, job: Job, seconds: float) -> None:
        if not limited:
            limited.append(job)
            limit(self, job, seconds)

    monkeypatch.setattr(Heartbeat, "limit", limit_one)

    @app.task(topic="b", batch=3, batch_wait=1, max_run_time=0.2, retry=Retry(never=(TimeLimit,)))
    async def hang(items: list[int]) -> None:
        await asyncio.Event().wait()

    broker.enqueue([hang.message(n) for n in range(3)])
    async with working(app, broker):
        await until(lambda: len(broker.dead()) == 3)
    assert [settle.kind for settle in broker.settled] == ["bury"] * 3


@pytest.mark.parametrize("options", [{"max_run_time": 0}, {"max_run_time": "5"}, {"max_run_time": 5, "executor": "process"}])
def test_what_is_no_time_is_refused(app: MQueue, options: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError), match="max_run_time"):
        app.task(topic="t", **options)(lambda: None)  # type: ignore[call-overload]
