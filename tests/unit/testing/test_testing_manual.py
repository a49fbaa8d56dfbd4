"""Jobs that wait in memory: what they find out about each other, ticks among them, handlers beside a loop, what a claim
compares.
"""

import asyncio
import sys
import threading
from contextvars import ContextVar

import pytest

from mqueue import MQueue, Retry, Snooze, current
from mqueue.testing import Drained, Inline, Manual, ManualClock, MemoryBroker

app = MQueue("http://127.0.0.1:9", "no")
ran: list[object] = []
user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


# ── results of jobs that have not run ──


@app.task(name="weigh", result=True)
def weigh(number: int) -> int:
    return number * 100


@app.task(name="load", max_retries=0)
def load(parts: list[int]) -> None:
    """As the guides for those who come from another queue have it."""
    try:
        weights = [weigh.handle(id).result(timeout=0) for id in parts]
    except TimeoutError:
        raise Snooze(0.2) from None
    ran.append(sum(weights))


def test_a_job_that_waits_for_others_is_put_off_and_spends_no_attempt(mqueue_manual: Manual) -> None:
    late = weigh.options(delay=1).enqueue(4)
    load.enqueue([weigh.enqueue(5).id, late.id])
    assert mqueue_manual.drain(to_the_end=True) == Drained(done=3, snoozed=5)
    assert ran == [900]


async def test_a_result_that_is_not_there_comes_too_late_or_never(mqueue_manual: Manual) -> None:
    handle = weigh.enqueue(4)
    for timeout in (0, 5):
        with pytest.raises(TimeoutError):
            handle.result(timeout=timeout)
        with pytest.raises(TimeoutError):
            await handle.result_async(timeout=timeout)
    with pytest.raises(TimeoutError, match="drain"):
        handle.result(timeout=5)
    with pytest.raises(RuntimeError, match="drain"):
        await handle.result_async()


# ── ticks ──


@app.task(name="minutely", every=60)
def minutely() -> None:
    ran.append(current().metadata["tick"])


@app.task(name="each-second", every=1, retry=Retry(max=1, base=3))
def each_second() -> None:
    raise LookupError


@app.task(name="note")
def note(what: str) -> None:
    ran.append(what)


def test_ticks_come_between_jobs_that_wait(mqueue_manual: Manual) -> None:
    mqueue_manual.schedule(minutely)
    note.options(delay=600).enqueue("late")
    assert mqueue_manual.drain(to_the_end=True) == Drained(done=11)
    assert (len(ran), "late" in ran[-2:]) == (11, True)  # the tenth tick has the same time


def test_a_schedule_whose_ticks_never_end_is_named_as_a_cause(mqueue_manual: Manual, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqueue.testing.manual.JOBS_MAX", 50)
    mqueue_manual.schedule(each_second)
    note.options(delay=600).enqueue("late")
    with pytest.raises(RuntimeError, match=r"50 jobs were run, .* or a schedule tick on"):
        mqueue_manual.drain(to_the_end=True, dead_ok=True)


def test_cron_without_what_reads_it_says_what_to_install(mqueue_manual: Manual, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task(name="nightly", cron="0 3 * * *")
    def nightly() -> None: ...

    monkeypatch.setitem(sys.modules, "cronsim", None)
    mqueue_manual.schedule(minutely)
    with pytest.raises(ModuleNotFoundError, match=r"cron= of task nightly needs pip install 'mqueue\[broker\]'"):
        mqueue_manual.schedule(nightly)


# ── handlers beside a loop ──


@app.task(name="runs-a-loop")
def runs_a_loop() -> None:
    async def inside() -> None:
        ran.append((user.get(), threading.current_thread() is threading.main_thread()))

    asyncio.run(inside())


async def test_a_def_that_runs_a_loop_of_its_own_on_a_loop_inline(mqueue_inline: Inline) -> None:
    user.set("ada")
    runs_a_loop.enqueue()
    await runs_a_loop.enqueue_async()
    assert ran == [("ada", False)] * 2


async def test_a_def_that_runs_a_loop_of_its_own_on_a_loop_drained(mqueue_manual: Manual) -> None:
    user.set("ada")
    runs_a_loop.enqueue()
    assert mqueue_manual.drain() == Drained(done=1)
    runs_a_loop.enqueue()
    assert await mqueue_manual.drain_async() == Drained(done=1)
    assert ran == [("ada", False)] * 2


def test_a_def_runs_right_here_where_no_loop_does(mqueue_manual: Manual) -> None:
    runs_a_loop.enqueue()
    assert mqueue_manual.drain() == Drained(done=1)
    assert ran == [("nobody", True)]


# ── claims ──


@app.task(name="any-names")
def any_names(first: int, *rest: int, **more: object) -> None: ...


def test_what_is_not_named_of_any_arguments_may_be_anything(mqueue_manual: Manual) -> None:
    any_names.enqueue(1, 2, 3, a=(4,), b=5)
    for args, kwargs in (([1], {"a": (4,)}), ([1, 2], {}), ([], {"b": 5, "a": [4]}), ([1, 2, 3], {"a": (4,), "b": 5})):
        mqueue_manual.assert_enqueued(any_names, args=args, kwargs=kwargs, count=1)
    for args, kwargs in (([1], {"a": 5}), ([1, 3], {}), ([1, 2, 3, 4], {}), ([], {"c": 5})):
        mqueue_manual.refute_enqueued(any_names, args=args, kwargs=kwargs)


# ── many jobs ──


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_a_drain_looks_at_each_job_a_few_times(mqueue_manual: Manual, monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    looks = 0
    stays = MemoryBroker._stays

    def counted(broker: MemoryBroker, stored: object) -> bool:
        nonlocal looks
        looks += 1
        return stays(broker, stored)  # type: ignore[arg-type]

    for number in range(500):
        note.options(delay=delay * number).enqueue(str(number))
    monkeypatch.setattr(MemoryBroker, "_stays", counted)
    assert mqueue_manual.drain(to_the_end=True) == Drained(done=500)
    assert ran == [str(number) for number in range(500)]
    assert looks < 500 * 20


def test_what_a_test_has_put_itself_is_passed_over(mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    own = [mqueue_manual.broker.enqueue("default", b"own", priority=-9, delay=delay) for delay in (0, 5)]
    note.options(delay=10).enqueue("later")
    note.enqueue("now")
    assert mqueue_manual.drain() == Drained(done=1)
    assert mqueue_manual.drain(to_the_end=True) == Drained(done=1)
    assert [message.id for message in mqueue_manual.broker.fetch("default")] == own
