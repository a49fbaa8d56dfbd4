"""The pytest plugin: what its fixtures do with enqueues, and that a run without them does not notice it."""

import asyncio
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import fake_broker
import pytest

import mqueue
from mqueue import Bury, Middleware, MQueue, RateLimited, Retry, Snooze, current
from mqueue.client import Client
from mqueue.testing import DeadJobs, Drained, Inline, Manual, ManualClock, TestBroker
from mqueue.worker.tasks.producer import Producer

BROKEN_URL = "http://127.0.0.1:9"


@dataclass
class Order:
    number: int
    total: Decimal


app = MQueue(BROKEN_URL, "no")
ran: list[object] = []


@app.task(topic="orders", priority=5, max_retries=1)
def confirm(order: Order, to: str = "ada") -> None:
    ran.append((order, to, current().attempt, current().metadata))
    if to == "nobody":
        raise LookupError(to)


@app.task(topic="orders", priority=1)
async def ship(number: int) -> None:
    await asyncio.sleep(0)
    ran.append(("ship", number))
    if number == 0:
        raise Bury("orders begin with 1")


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


# ── inline ──


def test_inline_runs_both_kinds_at_once_with_arguments_from_the_codec(mqueue_inline: Inline) -> None:
    order = Order(7, Decimal("1.50"))
    id = confirm.options(metadata={"a": 1}, delay=60).enqueue(order)
    other = ship.enqueue(7)
    assert id != other
    [(got, to, attempt, metadata), shipped] = ran
    assert (got, to, attempt, metadata, shipped) == (order, "ada", 1, {"a": 1}, ("ship", 7))
    assert got is not order
    mqueue_inline.assert_enqueued(confirm, args=[order], delay=60, priority=5)
    with pytest.raises(TypeError, match="number"):
        ship.enqueue("7")  # type: ignore[arg-type]


async def test_inline_on_a_loop(mqueue_inline: Inline) -> None:
    await ship.enqueue_async(1)
    await confirm.enqueue_async(Order(1, Decimal(1)))
    ship.enqueue(2)  # beside the loop that runs here
    await app.enqueue_many_async([ship.message(3), ship.message(4)])
    assert [each for each in ran if each[0] == "ship"] == [("ship", n) for n in (1, 2, 3, 4)]  # type: ignore[index]
    assert len(mqueue_inline.enqueued) == 5


def test_inline_errors_propagate_with_their_own_traceback(mqueue_inline: Inline) -> None:
    with pytest.raises(LookupError, match="nobody") as raised:
        confirm.enqueue(Order(1, Decimal(1)), to="nobody")
    assert raised.traceback[-1].name == "confirm"
    with pytest.raises(Bury):
        ship.enqueue(0)
    with pytest.raises(Bury):
        asyncio.run(ship.enqueue_async(0))


def test_the_default_app_and_apps_made_later_are_redirected_too(mqueue_inline: Inline) -> None:
    @mqueue.task(name="default-one")
    def one() -> None:
        ran.append(1)

    later = MQueue()
    two = later.task(name="later-two")(lambda: ran.append(2))
    mqueue.enqueue_many([one.message()])
    two.enqueue()
    assert ran == [1, 2]


# ── manual ──


def test_manual_records_and_asserts(mqueue_manual: Manual) -> None:
    order = Order(7, Decimal("19.90"))
    confirm.options(priority=0, metadata={"a": 1, "b": 2}).enqueue(order, to="bob")
    confirm.enqueue(order)
    assert not ran
    [first] = mqueue_manual.assert_enqueued(confirm, kwargs={"to": "bob"}, priority=0, metadata={"a": 1}, count=1)
    assert (first.args, first.kwargs, first.task) == ((order,), {"to": "bob"}, confirm)
    mqueue_manual.assert_enqueued(confirm, args=[order, "bob"])
    mqueue_manual.assert_enqueued(confirm, kwargs={"order": order, "to": "ada"})  # the default
    mqueue_manual.assert_enqueued(confirm, count=2, topic="orders")
    mqueue_manual.refute_enqueued(ship)
    mqueue_manual.refute_enqueued(confirm, kwargs={"to": "eve"})
    mqueue_manual.refute_enqueued(confirm, delay=5)
    mqueue_manual.refute_enqueued(confirm, metadata={"a": 2})
    assert [each.id for each in mqueue_manual.waiting] == [each.id for each in mqueue_manual.enqueued]


def test_a_failed_claim_says_what_was_enqueued_instead(mqueue_manual: Manual) -> None:
    with pytest.raises(AssertionError, match="nothing was enqueued"):
        mqueue_manual.assert_enqueued(ship)
    ship.options(delay=3).enqueue(5)
    with pytest.raises(AssertionError) as failed:
        mqueue_manual.assert_enqueued(ship, args=[6], priority=1)
    lines = str(failed.value).splitlines()
    assert lines[0].startswith("expected a job, found 0: ")
    assert lines[0].endswith("ship args=[6], priority=1")
    assert lines[2].endswith("ship(5)  [topic=orders priority=1 delay=3]")
    with pytest.raises(AssertionError, match="expected none, found 1"):
        mqueue_manual.refute_enqueued(ship)
    with pytest.raises(AssertionError, match="expected 2 of them, found 1"):
        mqueue_manual.assert_enqueued(ship, count=2)
    with pytest.raises(TypeError):
        mqueue_manual.assert_enqueued(ship, kwargs={"nr": 6})


def test_drain_keeps_the_brokers_order_and_runs_what_jobs_enqueue(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    @app.task(name="parent", priority=0)
    def parent() -> None:
        ship.options(priority=3).enqueue(31)
        ship.options(priority=-3).enqueue(-3)

    ship.options(priority=9).enqueue(9)
    ship.options(priority=2).enqueue(21)
    ship.options(priority=2).enqueue(22)
    ship.options(priority=2, at=mqueue_clock.now - timedelta(seconds=5)).enqueue(20)
    ship.options(delay=1).enqueue(100)
    parent.enqueue()
    assert mqueue_manual.drain() == Drained(done=7)
    assert [number for _, number in ran] == [-3, 20, 21, 22, 31, 9]  # type: ignore[misc]
    assert [each.args for each in mqueue_manual.waiting] == [(100,)]
    mqueue_clock.advance(1)
    assert mqueue_manual.drain() == Drained(done=1)


def test_retries_follow_the_policy_and_the_clock(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    attempts: list[tuple[int, float]] = []
    began = mqueue_clock.monotonic()

    @app.task(name="flaky", retry=Retry(max=3, base=10, cap=15))
    def flaky() -> None:
        attempts.append((current().attempt, round(mqueue_clock.monotonic() - began)))
        if current().attempt == 3:
            raise RateLimited(retry_after=100)
        raise ConnectionError("no")

    flaky.enqueue()
    assert mqueue_manual.drain() == Drained(failed=1)
    mqueue_clock.advance(9.9)
    assert mqueue_manual.drain() == Drained()
    mqueue_clock.advance(0.1)
    assert mqueue_manual.drain() == Drained(failed=1)
    with pytest.raises(DeadJobs, match=r"flaky\(\).*: ConnectionError: no") as dead:
        mqueue_manual.drain(to_the_end=True)
    assert isinstance(dead.value.__cause__, ConnectionError)
    assert attempts == [(1, 0), (2, 10), (3, 25), (4, 125)]
    [job] = mqueue_manual.dead
    assert job.job.task is flaky
    assert job.error.startswith("ConnectionError: no\n\nTraceback")


def test_snooze_spends_no_attempt_bury_is_dead_at_once(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    attempts: list[int] = []

    @app.task(name="early", max_retries=0)
    async def early() -> None:
        attempts.append(current().attempt)
        if len(attempts) < 3:
            raise Snooze(60)

    early.enqueue()
    ship.enqueue(0)
    assert mqueue_manual.drain(dead_ok=True) == Drained(snoozed=1, dead=1)
    assert [str(dead.raised) for dead in mqueue_manual.dead] == ["orders begin with 1"]
    assert mqueue_manual.drain(to_the_end=True) == Drained(done=1, snoozed=1)  # the dead one of before is no news
    assert attempts == [1, 1, 1]


def test_ttl_idempotency_and_lease_expiry_by_the_clock(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    ship.options(ttl=10).enqueue(1)
    first = ship.options(idempotency_key="k").enqueue(2)
    assert ship.options(idempotency_key="k").enqueue(2) == first
    with pytest.raises(mqueue.errors.KeyReused):
        ship.options(idempotency_key="k").enqueue(3)
    assert len(mqueue_manual.enqueued) == 2
    [_, leased] = mqueue_manual.broker.fetch("orders", lease=30)  # by a worker that vanishes
    mqueue_clock.advance(29)
    assert mqueue_manual.drain() == Drained()
    mqueue_clock.advance(1)
    assert mqueue_manual.drain() == Drained(done=1)
    assert ran == [("ship", 2)]
    assert mqueue_manual.broker.ack([leased])[0].status == "gone"


async def test_drain_on_a_loop(mqueue_manual: Manual) -> None:
    where: list[str] = []

    @app.task(name="here")
    async def here() -> None:
        where.append(threading.current_thread().name)

    await here.enqueue_async()
    await mqueue_manual.drain_async()
    here.enqueue()
    mqueue_manual.drain()  # beside it
    assert where[0] == threading.current_thread().name != where[1]


def test_middleware_is_around_enqueues_and_handlers(mqueue_manual: Manual) -> None:
    class Tagging(Middleware):
        def enqueue(self, messages):  # type: ignore[no-untyped-def]
            for message in messages:
                message.metadata = {"tag": "x"}
            return super().enqueue(messages)

    tagged = MQueue(middleware=[Tagging()])
    task = tagged.task(name="tagged")(lambda: ran.append(current().metadata))
    task.enqueue()
    mqueue_manual.assert_enqueued(task, metadata={"tag": "x"})
    mqueue_manual.drain()
    assert ran == [{"tag": "x"}]


def test_a_job_that_always_enqueues_another_does_not_drain_for_ever(mqueue_manual: Manual, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqueue.testing.manual.JOBS_MAX", 50)

    @app.task(name="endless")
    def endless() -> None:
        endless.enqueue()

    endless.enqueue()
    with pytest.raises(RuntimeError, match="50 jobs were run"):
        mqueue_manual.drain()


def test_the_end_of_a_test_is_not_a_jobs_failure(mqueue_manual: Manual) -> None:
    app.task(name="failing-test")(lambda: pytest.fail("here")).enqueue()
    with pytest.raises(pytest.fail.Exception, match="here"):
        mqueue_manual.drain()


def test_the_clock_never_goes_back() -> None:
    clock = ManualClock(1_000_000)
    for wrong in (lambda: clock.advance(-1), lambda: clock.advance(float("nan")), lambda: clock.move_to(clock.now - timedelta(seconds=1))):
        with pytest.raises(ValueError, match="never goes back"):
            wrong()
    with pytest.raises(ValueError, match="no time zone"):
        clock.move_to(clock.now.replace(tzinfo=None))
    clock.move_to(clock.now + timedelta(hours=1))
    assert (clock.wall_us(), clock.monotonic()) == (3_601_000_000, 3601.0)


# ── results ──


@app.task(name="price", result=True, result_ttl=60, max_retries=0)
def price(number: int) -> Decimal:
    if number < 0:
        raise LookupError(number)
    return Decimal(number) / 2


async def test_results_inline(mqueue_inline: Inline) -> None:
    assert price.enqueue(3).result() == Decimal("1.5")
    assert await (await price.enqueue_async(5)).result_async() == Decimal("2.5")


async def test_results_of_what_was_drained(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    handle, failing = price.enqueue(3), price.enqueue(-1)
    status = handle.status()
    assert status is not None
    assert status.state == "ready"
    with pytest.raises(RuntimeError, match="drain"):
        handle.result()
    mqueue_manual.drain(dead_ok=True)
    assert handle.result() == await handle.result_async() == Decimal("1.5")
    status = await handle.status_async()
    assert status is not None and status.state == "done"
    with pytest.raises(mqueue.errors.JobFailed, match="LookupError"):
        failing.result()
    mqueue_clock.advance(60)
    with pytest.raises(mqueue.errors.NotFound):
        handle.result()
    assert handle.status() is None


async def test_results_of_jobs_that_a_real_broker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle asks the test's broker, and the job's end is seen though its result stays."""
    monkeypatch.delenv("MQUEUE_URL", raising=False)
    nowhere = MQueue()
    task = nowhere.task(name="price", result=True)(price.function)
    with (
        fake_broker.start() as broker,
        Client(broker.url, broker.token) as client,
        TestBroker(broker.url, broker.token, client).connected() as test,
    ):
        one = task.enqueue(3)
        status = one.status()
        assert status is not None and (status.namespace, status.state) == (test.namespace, "ready")
        await test.run_until_idle_async(timeout=10)
        assert one.result(timeout=10) == await one.result_async(timeout=10) == Decimal("1.5")
        status = await one.status_async()
        assert status is not None and status.state == "done"
        other = task.enqueue(4)
        assert other.cancel() == "cancelled" and await other.cancel_async() == "gone"


# ── cancel ──


@app.task(name="regret", max_retries=3)
def regret() -> None:
    job = current()
    ran.append((regret.handle(job.id).cancel(), job.id))
    raise LookupError


async def test_cancel_inline(mqueue_inline: Inline) -> None:
    handle = ship.enqueue(1)
    assert handle.cancel() == await handle.cancel_async() == "gone"


async def test_cancel_of_what_waits_and_of_what_runs(mqueue_manual: Manual) -> None:
    handle, late = ship.enqueue(1), ship.options(delay=60).enqueue(2)
    assert handle.cancel() == "cancelled" and await handle.cancel_async() == "gone"
    assert await late.cancel_async() == "cancelled"
    assert mqueue_manual.drain() == Drained() and ran == []
    running = regret.enqueue()
    mqueue_manual.drain(to_the_end=True)
    assert ran == [("cancelling", running.id)] and running.status() is None and mqueue_manual.dead == []


# ── batches ──


@app.task(name="many", topic="many", batch=10, max_retries=0)
def many(numbers: list[int]) -> list[BaseException | None]:
    ran.append(numbers)
    return [ValueError("odd") if number % 2 else None for number in numbers]


def test_the_handler_of_a_batch_gets_a_batch_of_one(mqueue_manual: Manual) -> None:
    many.enqueue(2)
    many.enqueue(3)
    mqueue_manual.assert_enqueued(many, args=[3], count=1)
    assert mqueue_manual.drain(dead_ok=True) == Drained(done=1, dead=1)
    assert ran == [[2], [3]]
    assert [str(dead.raised) for dead in mqueue_manual.dead] == ["odd"]


def test_a_batch_inline(mqueue_inline: Inline) -> None:
    many.enqueue(2)
    with pytest.raises(ValueError, match="odd"):
        many.enqueue(3)


# ── periodic tasks ──


@app.task(name="nightly", cron="0 3 * * *", timezone="Europe/Berlin")
def nightly() -> None:
    ran.append(current().metadata["tick"])


@app.task(name="each-minute", every=60, catch_up="all")
def each_minute() -> None:
    ran.append("minute")


def test_periodic_tasks_come_as_the_clock_moves(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    mqueue_clock.move_to(datetime(2100, 6, 1, 0, 0, tzinfo=UTC))
    mqueue_manual.schedule(nightly)
    assert mqueue_manual.drain() == Drained()
    mqueue_clock.advance(3600)
    assert mqueue_manual.drain() == Drained(done=1)
    assert ran == ["2100-06-01T01:00:00Z"]
    mqueue_clock.advance(5 * 86400)  # missed: one of them comes
    assert mqueue_manual.drain(to_the_end=True) == Drained(done=1)
    mqueue_manual.assert_enqueued(nightly, count=2, metadata={"schedule": "nightly"})
    mqueue_manual.schedule(each_minute)
    mqueue_clock.advance(600)
    assert mqueue_manual.drain() == Drained(done=10)
    with pytest.raises(ValueError, match="not periodic"):
        mqueue_manual.schedule(ship)


# ── the plugin itself ──


def test_one_of_the_fixtures_at_a_time(mqueue_inline: Inline, request: pytest.FixtureRequest) -> None:
    with pytest.raises(RuntimeError, match="one of the fixtures"):
        request.getfixturevalue("mqueue_manual")


def test_afterwards_enqueues_go_to_the_broker_again() -> None:
    assert Producer.enqueue_many.__module__ == "mqueue.worker.tasks.producer"
    assert isinstance(Producer.endpoint, property)


def test_the_plugin_is_cheap_to_import() -> None:
    code = "import sys, pytest; b=set(sys.modules); import mqueue.testing.plugin; print(*sorted(set(sys.modules)-b))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"mqueue", "mqueue.testing", "mqueue.testing.plugin"}
