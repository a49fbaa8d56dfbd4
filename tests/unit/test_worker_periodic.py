"""Periodic tasks: what a decorator refuses, and what a worker declares."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest
from fake_broker import FakeBroker, start
from working import working

from mqueue import Retry
from mqueue.testing import Drained, Manual, ManualClock
from mqueue.worker.runtime import Worker
from mqueue.worker.tasks.app import MQueue
from tests.waiting import until


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with start() as broker:
        yield broker


@pytest.fixture
def app(broker: FakeBroker) -> MQueue:
    return MQueue(broker.url, broker.token)


def simple(n: int = 1, *, to: str = "ada") -> None: ...


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "99 * * * *"}, "99"),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, "no time zone"),
        ({"cron": "* * * * *", "every": 5}, "either cron or every"),
        ({"every": 0.2}, "seconds"),
        ({"every": timedelta(0)}, "seconds"),
        ({"every": 5, "timezone": "UTC"}, "timezone= is for cron="),
        ({"every": 5, "catch_up": "some"}, "'skip', 'one' or 'all'"),
        ({"timezone": "UTC"}, "for a task with cron= or every="),
        ({"catch_up": "all"}, "for a task with cron= or every="),
        ({"args": (1,)}, "for a task with cron= or every="),
        ({"kwargs": {"to": "eve"}}, "for a task with cron= or every="),
        ({"every": 5, "kwargs": {"to": "x" * 70_000}}, "take 70,0.. bytes, 65,536 are allowed"),
        ({"every": 5, "name": "two words"}, "give it a name="),
    ],
)
def test_what_is_no_schedule_is_an_error_where_it_is_written(options: dict[str, Any], says: str) -> None:
    app = MQueue("http://unused")
    with pytest.raises(ValueError, match=says):
        app.task(**({"name": "t"} | options))(simple)
    assert not len(app)


def test_what_it_needs_must_be_given() -> None:
    app = MQueue("http://unused")
    for needs in (lambda n: None, lambda *, to: None):
        with pytest.raises(TypeError, match=r"task t is periodic: give its ticks args= or kwargs=: missing a required"):
            app.task(name="t", every=5)(needs)
    app.task(name="t", every=5)(simple)


@dataclass
class Order:
    number: int
    to: set[str]


def typed(order: Order, day: date = date(2025, 1, 1), *, tags: frozenset[str] = frozenset()) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (simple, {"args": ("1",)}, r"task t: argument 'n' does not fit: Expected `int`, got `str`"),
        (simple, {"kwargs": {"to": 5}}, r"task t: argument 'to' does not fit: Expected `str`, got `int`"),
        (simple, {"args": (1, 2)}, "too many positional arguments"),
        (simple, {"kwargs": {"too": "eve"}}, "unexpected keyword argument 'too'"),
        (simple, {"args": (object(),)}, "argument 'n': a object has no JSON form"),
        (typed, {"args": ({"number": 5},)}, "argument 'order' does not fit"),
        (typed, {"kwargs": {"day": date(2025, 1, 1)}}, "missing a required argument: 'order'"),
        (simple, {"args": "ada"}, r"args='ada' is no tuple: like args=\('ada',\)"),
        (simple, {"args": 5}, "is no tuple"),
        (simple, {"kwargs": [("to", "eve")]}, "is no dict by parameter names"),
        (simple, {"kwargs": {1: "eve"}}, "is no dict by parameter names"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error_where_they_are_written(
    function: Callable[..., None], options: dict[str, Any], says: str
) -> None:
    app = MQueue("http://unused")
    with pytest.raises(TypeError, match=says):
        app.task(name="t", every=5, **options)(function)
    assert not len(app)


def test_with_arguments_the_annotations_must_be_readable_there() -> None:
    app = MQueue("http://unused")

    def later(order: "Later" = None) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    app.task(name="without", every=5)(later)
    with pytest.raises(TypeError, match=r"define what its annotations name above it: .*'Later' is not defined"):
        app.task(name="with", every=5, args=(None,))(later)


def test_ticks_have_what_the_decorator_said_then() -> None:
    app, given = MQueue("http://unused"), {"eve"}
    task = app.task(name="t", cron="0 4 * * *", args=[Order(7, given)], kwargs={"tags": frozenset("b"), "day": date(2025, 6, 1)})(typed)
    given.add("mallory")
    assert task.periodic is not None
    call = msgspec.json.decode(task.periodic.payload)
    assert call == {"task": "t", "args": [{"number": 7, "to": ["eve"]}], "kwargs": {"day": "2025-06-01", "tags": ["b"]}}
    assert task.shape.fit(call["args"], call["kwargs"]) == ([Order(7, {"eve"})], {"day": date(2025, 6, 1), "tags": frozenset("b")})


def test_ticks_bring_their_arguments(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    app, ran = MQueue("http://unused"), []

    @app.task(name="t", every=60, args=(Order(7, {"eve"}),), kwargs={"tags": frozenset("b")})
    def note(order: Order, *, tags: frozenset[str]) -> None:
        ran.append((order, tags))

    mqueue_manual.schedule(note)
    mqueue_clock.advance(60)
    assert mqueue_manual.drain() == Drained(done=1)
    assert ran == [(Order(7, {"eve"}), frozenset("b"))]
    mqueue_manual.assert_enqueued(note, args=[Order(7, {"eve"})], kwargs={"tags": frozenset("b")})


def test_every_process_declares_the_same() -> None:
    """A set has another order in each, and what is not the same changes the schedule."""
    code = (
        "from mqueue import MQueue\n"
        "def f(names: set[str]) -> None: ...\n"
        "print(MQueue('http://unused').task(name='t', every=5, args=({'ada', 'bob', 'eve', 'mallory'},))(f).periodic.payload.decode())"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True).stdout
        for seed in ("1", "2", "3")
    }
    assert said == {'{"task":"t","args":[["ada","bob","eve","mallory"]],"kwargs":{}}\n'}


def test_without_cronsim_the_broker_checks() -> None:
    code = (
        "import sys; sys.modules['cronsim'] = None\n"
        "from mqueue import MQueue\n"
        "app = MQueue('http://unused')\n"
        "print(app.task(name='t', cron='99 * * * *')(lambda: None).periodic.cron)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "99 * * * *\n"


async def test_a_worker_declares_what_it_runs(app: MQueue, broker: FakeBroker) -> None:
    app.task(name="beat", topic="a", every=timedelta(seconds=90), priority=3, retry=Retry(max=7), lease=9)(simple)
    app.task(name="nightly", topic="b", cron="0 4 * * *", timezone="Europe/Berlin", catch_up="all")(simple)
    app.task(name="other", topic="c", every=5)(simple)
    app.task(name="plain", topic="a")(simple)
    async with working(app, broker, topics=("a", "b"), namespace="n"):
        await until(lambda: len(broker.schedules) == 2)
    (first, beat), (second, nightly) = broker.schedules
    assert (first, second) == ("beat", "nightly")
    assert (beat.namespace, beat.topic, beat.every, beat.cron, beat.priority, beat.max_retries, beat.lease, beat.declared) == (
        "n", "a", 90.0, None, 3, 7, 9, True,
    )  # fmt: skip
    assert (nightly.cron, nightly.timezone, nightly.catch_up) == ("0 4 * * *", "Europe/Berlin", "all")
    assert msgspec.json.decode(beat.payload) == {"task": "beat", "args": [], "kwargs": {}}


async def test_it_runs_jobs_before_the_broker_takes_its_schedules(app: MQueue, broker: FakeBroker) -> None:
    ran = asyncio.Event()

    @app.task(name="beat", topic="a", every=5)
    async def beat() -> None:
        ran.set()

    broker.refuse("/schedules/beat", times=2)
    broker.refuse("/schedules/bad", times=99, status=400, code="invalid")
    app.task(name="bad", topic="a", every=5)(simple)
    await beat.enqueue_async()
    async with working(app, broker):
        async with asyncio.timeout(10):
            await ran.wait()
        await until(lambda: broker.schedules)
    assert broker.requests["/schedules/beat"] == 3
    assert broker.requests["/schedules/bad"] == 1, "refused for good"


async def test_a_worker_that_is_away_from_its_broker_stops_all_the_same(app: MQueue, broker: FakeBroker) -> None:
    app.task(name="beat", topic="a", every=5)(simple)
    broker.server.down()
    worker = Worker(app, url=broker.url, token=broker.token)
    run = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    worker.stop()
    async with asyncio.timeout(10):
        assert await run == 0
    broker.server.up()
