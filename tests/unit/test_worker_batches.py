"""Batches: what is gathered, what its verdicts lead to, and that nothing is held for long or lost."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fake_broker import FakeBroker
from working import working

from mqueue import Bury, Current, Middleware, MQueue, RateLimited, Retry, Snooze, current
from mqueue.worker.running.batch import BadVerdicts, verdicts
from mqueue.worker.runtime import Worker
from mqueue.worker.sources import WorkerError
from mqueue.worker.stopping import SETTLE_S
from mqueue.worker.tasks.job import Interrupt
from tests.waiting import until

FAR_S = 50.0  # a batch_wait that no test waits for


@dataclass
class Order:
    number: int


async def test_full_batches_run_at_once_in_order_of_priority(app: MQueue, broker: FakeBroker) -> None:
    batches: list[list[Order]] = []

    @app.task(topic="orders", batch=4, batch_wait=FAR_S)
    async def confirm(items: list[Order]) -> None:
        batches.append(items)

    broker.enqueue([confirm.options(priority=priority).message(Order(priority)) for priority in (3, 1, 7, 0, 5, 2, 6, 4)])
    async with working(app, broker, concurrency=1) as worker:
        await until(lambda: not broker.live())
        assert [[order.number for order in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert worker.counts == {"ack": 8}
        await until(lambda: worker._fetcher.slots.running == 0)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_what_comes_one_by_one_is_gathered_though_there_is_one_slot(app: MQueue, broker: FakeBroker, asynchronous: bool) -> None:
    batches: list[list[int]] = []

    def threaded(items: list[int]) -> None:
        batches.append(items)

    async def looped(items: list[int]) -> None:
        batches.append(items)

    task = app.task(topic="t", batch=5, batch_wait=FAR_S)(looped if asynchronous else threaded)  # type: ignore[arg-type]
    async with working(app, broker, concurrency=1):
        for n in range(5):
            broker.enqueue([task.message(n)])
            await until(lambda n=n: all(s.leased for s in broker.live()))  # type: ignore[misc]
        await until(lambda: not broker.live())
    assert batches == [[0, 1, 2, 3, 4]]


async def test_a_batch_that_is_complete_does_not_wait(app: MQueue, broker: FakeBroker) -> None:
    batches: list[list[int]] = []

    @app.task(topic="t", batch=3, batch_wait=FAR_S)
    async def take(items: list[int]) -> None:
        batches.append(items)

    broker.enqueue([take.message(n) for n in range(2)])
    async with working(app, broker):
        await until(lambda: sum(s.leased for s in broker.live()) == 2)
        assert batches == []
        broker.enqueue([take.message(n) for n in range(2, 5)])
        await until(lambda: batches == [[0, 1, 2]])
        await until(lambda: sum(s.leased for s in broker.live()) == 2)
    assert batches == [[0, 1, 2]] and not any(s.leased or s.attempts for s in broker.live())


async def test_each_item_has_its_verdict(app: MQueue, broker: FakeBroker) -> None:
    given = [None, True, ValueError("wrong"), Bury("no use"), Snooze(100), RateLimited(retry_after=200), False, KeyError("gone")]

    @app.task(topic="t", batch=8, batch_wait=FAR_S, retry=Retry(base=7, jitter=0, never=(KeyError,)))
    def take(items: list[int]) -> list[Any]:
        return [given[item] for item in items]

    ids = broker.enqueue([take.message(n) for n in range(8)])
    async with working(app, broker) as worker:
        await until(lambda: len(broker.settled) == 8)
    told = {s.id: s for s in broker.settled}
    kinds = [told[id].kind for id in ids]
    assert kinds == ["ack", "ack", "nack", "bury", "release", "nack", "nack", "bury"]
    assert [told[id].retry_after for id in ids] == [None, None, 7, None, 100, 200, 7, None]
    assert (told[ids[2]].error or "").startswith("ValueError: wrong")
    assert "the verdict on item 6 is a bool" in (told[ids[6]].error or "")
    assert worker.counts == {"ack": 2, "nack": 3, "bury": 2, "release": 1}


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ([None], "the handler returned 1 verdicts for a batch of 3"),
        (3, "None, or a list of 3 verdicts, not a int"),
        ("abc", "not a str"),
        (ValueError("whole"), "not a ValueError"),
    ],
)
def test_what_is_no_list_of_verdicts_is_refused(returned: object, says: str) -> None:
    with pytest.raises(BadVerdicts, match=says):
        verdicts(returned, 3)


async def test_what_the_handler_raises_is_every_items_outcome(app: MQueue, broker: FakeBroker) -> None:
    @app.task(topic="t", batch=3, batch_wait=FAR_S, max_retries=5)
    async def take(items: list[int]) -> list[None]:
        if current().attempt == 1:
            raise RateLimited("all of it", retry_after=0)
        return [None]

    broker.enqueue([take.message(n) for n in range(3)])
    async with working(app, broker) as worker:
        await until(lambda: len(broker.settled) >= 6)
    errors = [(s.error or "").partition("\n")[0] for s in broker.settled[:6]]
    assert all("RateLimited: all of it" in error for error in errors[:3])
    assert all("BadVerdicts: the handler returned 1 verdicts for a batch of 3" in error for error in errors[3:])
    assert {s.kind for s in broker.settled[:6]} == {"nack"} and worker.counts["nack"] >= 6


async def test_an_item_that_does_not_fit_is_buried_alone(app: MQueue, broker: FakeBroker) -> None:
    batches: list[list[int]] = []

    @app.task(topic="t", name="take", batch=3, batch_wait=0.05)
    async def take(items: list[int]) -> None:
        batches.append(items)

    @app.task(topic="other", name="other")
    async def other() -> None: ...

    bad = [b"no call", b'{"task":"take","args":["x"]}', b'{"task":"take","args":[1,2]}', b'{"task":"take","kwargs":{"items":[1]}}']
    stray = [other.options().message()]
    stray[0].topic = "t"
    async with working(app, broker, concurrency=1) as worker:
        for payload in bad:
            item = take.message(0)
            item.payload = payload
            broker.enqueue([item])
            await until(lambda: all(s.dead for s in broker.messages.values()))
        broker.enqueue(stray)
        await until(lambda: any("batches of another task" in (s.error or "") for s in broker.settled))
        broker.enqueue([take.message(n) for n in range(3)])
        await until(lambda: sum(map(len, batches)) == 3)
        await until(lambda: worker._fetcher.slots.running == 0)  # every slot is back
    assert len(broker.dead()) == len(bad) and sorted(n for batch in batches for n in batch) == [0, 1, 2]


async def test_a_batch_task_elsewhere_gets_a_batch_of_one(app: MQueue, broker: FakeBroker) -> None:
    batches: list[list[int]] = []

    @app.task(topic="t", batch=10)
    async def take(items: list[int]) -> None:
        batches.append(items)

    app.task(topic="other")(lambda: None)
    item = take.message(5)
    item.topic = "other"
    broker.enqueue([item])
    async with working(app, broker) as worker:
        await until(lambda: not broker.live())
        await until(lambda: worker._fetcher.slots.running == 0)
    assert batches == [[5]]


# ── slots, leases, stopping ──


async def test_a_batch_takes_one_slot(app: MQueue, broker: FakeBroker) -> None:
    gate, running = asyncio.Event(), 0

    @app.task(topic="t", batch=10, batch_wait=0.05)
    async def take(items: list[int]) -> None:
        nonlocal running
        running += 1
        await gate.wait()

    @app.task(topic="other")
    async def other() -> None:
        nonlocal running
        running += 1
        await gate.wait()

    broker.enqueue([take.message(n) for n in range(100)])
    async with working(app, broker, concurrency=3) as worker:
        await until(lambda: running == 2)  # and the third slot waits for the other topic
        assert sum(s.leased for s in broker.live()) == 20  # what it holds, it runs
        assert worker.status().running == 2
        broker.enqueue([other.options(priority=-1).message()])
        gate.set()
        await until(lambda: not broker.live())
        await until(lambda: worker._fetcher.slots.running == 0)
    assert worker.counts["ack"] == 101 and max(poll.limit for poll in broker.polls if poll.topics == ["t"]) == 10


@pytest.mark.parametrize("when", ["gathering", "running"])
async def test_a_stop_hands_a_batch_back_with_no_attempt_spent(app: MQueue, broker: FakeBroker, when: str) -> None:
    began, end = threading.Event(), threading.Event()

    @app.task(topic="t", batch=3, batch_wait=FAR_S)
    def take(items: list[int]) -> None:
        began.set()
        end.wait(20)

    broker.enqueue([take.message(n) for n in range(2 if when == "gathering" else 3)])
    worker = Worker(app, url=broker.url, token=broker.token, grace=0.05)
    run = asyncio.create_task(worker.run())
    await until(lambda: any(map(len, worker._gatherer._open.values())) if when == "gathering" else began.is_set())
    worker.stop()
    async with asyncio.timeout(10):
        assert await run == 0
    end.set()
    assert began.is_set() == (when == "running")
    assert broker.live() and not any(s.leased or s.attempts for s in broker.live())
    assert worker.counts == {"release": len(broker.live())}


async def test_a_stop_waits_no_longer_than_for_the_poll_that_gathers(app: MQueue, broker: FakeBroker) -> None:
    """Also where that one is the last to come back, after all is settled."""

    @app.task(topic="t", batch=3, batch_wait=FAR_S)
    def take(items: list[int]) -> None: ...

    broker.deaf = True
    broker.enqueue([take.message(n) for n in range(2)])
    worker = Worker(app, url=broker.url, token=broker.token)
    run = asyncio.create_task(worker.run())
    await until(lambda: any(map(len, worker._gatherer._open.values())) and broker.waiting)
    for message in broker.live():
        message.cancelling = True  # else they would come back by that poll
    worker.stop()
    async with asyncio.timeout(SETTLE_S * 0.7):
        assert await run == 0
    assert worker.counts == {"release": 2}


async def test_leases_are_renewed_while_a_batch_is_gathered(app: MQueue, broker: FakeBroker) -> None:
    attempts: list[int] = []

    @app.task(topic="t", batch=10, batch_wait=1.0, lease=0.3)
    async def take(items: list[int]) -> None:
        attempts.extend(each.attempt for each in current().batch)

    broker.enqueue([take.message(n) for n in range(2)])
    async with working(app, broker):
        await until(lambda: not broker.live())
    assert attempts == [1, 1] and len(broker.extends) >= 2


async def test_of_a_batch_only_what_is_lost_is_not_settled(app: MQueue, broker: FakeBroker) -> None:
    began, gate, seen = asyncio.Event(), asyncio.Event(), list[bool]()

    @app.task(topic="t", batch=2, batch_wait=FAR_S, lease=0.3)
    async def take(items: list[int]) -> None:
        began.set()
        await gate.wait()
        seen.extend(each.cancelled for each in current().batch)

    one, two = broker.enqueue([take.message(n) for n in range(2)])
    async with working(app, broker) as worker:
        await began.wait()
        broker.steal(one)
        await until(lambda: any(Interrupt.LOST in each.interrupts for job in worker._jobs for each in job.batch or ()))
        gate.set()
        await until(lambda: worker.counts["lost"] == 1)
    assert seen == [True, False] and [s.id for s in broker.settled] == [two]


@pytest.mark.parametrize("all_of_it", [False, True])
async def test_what_is_lost_as_a_batch_is_gathered_is_not_run_here(app: MQueue, broker: FakeBroker, all_of_it: bool) -> None:
    batches: list[list[int]] = []

    @app.task(topic="t", batch=2, batch_wait=1.5, lease=0.3)
    async def take(items: list[int]) -> None:
        batches.append(items)

    [stolen] = broker.enqueue([take.message(0)])
    async with working(app, broker, concurrency=1) as worker:
        await until(lambda: broker.messages[stolen].leased)
        broker.steal(stolen)
        if not all_of_it:
            await until(lambda: any(Interrupt.LOST in job.interrupts for gathered in worker._gatherer._open.values() for job in gathered))
            broker.enqueue([take.message(1)])
        await until(lambda: worker.counts["lost"] == 1)
        if all_of_it:
            broker.enqueue([take.message(1)])  # the slot is free
        await until(lambda: batches == [[1]] and worker._fetcher.slots.running == 0)


def endless(app: MQueue) -> tuple[Any, asyncio.Event, asyncio.Event]:
    """A task for batches of two that ends only when it is cancelled; when one has begun, and when it was cancelled."""
    began, cancelled = asyncio.Event(), asyncio.Event()

    @app.task(topic="t", batch=2, batch_wait=FAR_S, lease=0.3)
    async def take(items: list[int]) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    return take, began, cancelled


async def test_a_batch_all_of_which_is_lost_is_cancelled(app: MQueue, broker: FakeBroker) -> None:
    take, began, cancelled = endless(app)
    ids = broker.enqueue([take.message(n) for n in range(2)])
    async with working(app, broker) as worker:
        await began.wait()
        for id in ids:
            broker.steal(id)
        async with asyncio.timeout(10):
            await cancelled.wait()
        await until(lambda: worker.counts["lost"] == 2)
    assert broker.settled == []


@pytest.mark.parametrize("first", ["steal", "cancel"])
async def test_a_batch_of_which_nothing_is_wanted_here_any_more_is_cancelled(app: MQueue, broker: FakeBroker, first: str) -> None:
    """One item is lost, the other one was cancelled."""
    take, began, cancelled = endless(app)
    one, other = broker.enqueue([take.message(n) for n in range(2)])
    async with working(app, broker) as worker:
        await began.wait()
        [job] = worker._jobs
        for what in (first, "cancel" if first == "steal" else "steal"):
            broker.steal(one) if what == "steal" else broker.cancel(other)
            reason = Interrupt.LOST if what == "steal" else Interrupt.CANCELLED
            await until(lambda: any(reason in each.interrupts for each in job.batch or ()))
        async with asyncio.timeout(10):
            await cancelled.wait()
        await until(lambda: worker.counts == {"lost": 1, "cancel": 1})
    assert [(settle.id, settle.kind) for settle in broker.settled] == [(other, "cancel")]


async def test_a_broker_that_goes_while_a_batch_is_gathered_does_not_keep_it(app: MQueue, broker: FakeBroker) -> None:
    batches: list[list[int]] = []

    @app.task(topic="t", batch=10, batch_wait=1.0)
    async def take(items: list[int]) -> None:
        batches.append(items)

    broker.enqueue([take.message(1)])
    async with working(app, broker) as worker:
        await until(lambda: broker.live()[0].leased)
        await asyncio.to_thread(broker.server.down)
        await until(lambda: batches == [[1]])
        await asyncio.to_thread(broker.server.up)
        await until(lambda: not broker.live())
        broker.enqueue([take.message(n) for n in range(10)])
        await until(lambda: not broker.live() and worker._fetcher.slots.running == 0)


# ── what the handler and the middleware see ──


async def test_middleware_surrounds_a_batch_once(broker: FakeBroker) -> None:
    seen: list[tuple[int, list[dict[str, Any]]]] = []

    class Seen(Middleware):
        @contextmanager
        def run(self, job: Current) -> Iterator[None]:
            seen.append((job.id, [each.metadata for each in job.batch]))
            yield

    app = MQueue(broker.url, broker.token, middleware=[Seen()])

    @app.task(topic="t", batch=2, batch_wait=FAR_S)
    async def take(items: list[int]) -> None: ...

    @app.task(topic="other")
    async def plain() -> None:
        assert current().batch == []

    ids = broker.enqueue([take.options(metadata={"n": n}).message(n) for n in range(2)])
    other = broker.enqueue([plain.message()])
    async with working(app, broker) as worker:
        await until(lambda: not broker.live())
    assert sorted(seen) == sorted([(ids[0], [{"n": 0}, {"n": 1}]), (other[0], [])])
    assert worker.counts == {"ack": 3}


# ── declaring one ──


def test_an_item_is_checked_where_it_is_enqueued(app: MQueue, broker: FakeBroker) -> None:
    @app.task(topic="t", batch=2)
    def take(items: list[Order]) -> None: ...

    take.enqueue(Order(1))
    with pytest.raises(TypeError, match="argument 'item' does not fit"):
        take.enqueue("x")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        take.enqueue(Order(1), Order(2))  # type: ignore[call-arg]
    assert len(broker.live()) == 1
    assert take([Order(1), Order(2)]) is None  # it is a function of a list still


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 0}, "from 1 to 1,000"),
        ({"batch": 1001}, "from 1 to 1,000"),
        ({"batch": True}, "from 1 to 1,000"),
        ({"batch": 2.5}, "from 1 to 1,000"),
        ({"batch": 2, "batch_wait": -1}, "from 0 to 60"),
        ({"batch": 2, "batch_wait": float("nan")}, "from 0 to 60"),
        ({"batch": 2, "batch_wait": 61}, "from 0 to 60"),
        ({"batch_wait": 1}, "needs batch="),
        ({"batch": 2, "executor": "process"}, "do not go together"),
        ({"batch": 2, "result": True}, "do not go together"),
    ],
)
def test_options_of_a_batch_are_checked(app: MQueue, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        app.task(topic="t", **options)(lambda items: None)
    assert len(app) == 0


def test_its_handler_takes_a_list(app: MQueue) -> None:
    def wrong(items: int) -> None: ...

    def two(items: list[int], more: int) -> None: ...

    def named(*, items: list[int]) -> None: ...

    def more(items: list[int], n: int = 3) -> None: ...

    for function in (two, named, lambda: None):
        with pytest.raises(TypeError, match="takes one argument"):
            app.task(topic="t", batch=2)(function)  # type: ignore[arg-type]
    app.task(topic="u", batch=2)(more)
    with pytest.raises(TypeError, match="takes a list of items"):
        app.task(topic="t", batch=2)(wrong).message(3)  # type: ignore[arg-type,call-arg]


def test_its_topic_is_its_own(app: MQueue) -> None:
    app.task(topic="t", name="many", batch=2)(lambda items: None)
    app.task(topic="t", name="one", namespace="elsewhere")(lambda: None)
    Worker(app)
    with pytest.raises(WorkerError, match="task many takes batches, so it needs a topic of its own: n/t is also that of one"):
        Worker(app, namespace="n")
    app.task(topic="t", name="two")(lambda: None)
    with pytest.raises(WorkerError, match="default/t is also that of two"):
        Worker(app)
