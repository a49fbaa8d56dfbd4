"""The worker against a broker: every way a job ends, leases, outages, stopping. The main cases look through the API
only.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from fake_broker import FakeBroker
from working import working

from mqueue import Bury, RateLimited, Retry, Snooze, current
from mqueue.client import AsyncClient
from mqueue.errors import Unauthorized
from mqueue.worker.polling.lane import lanes
from mqueue.worker.polling.pause import pause_s
from mqueue.worker.runtime import Worker
from mqueue.worker.sources import WorkerError, sources
from mqueue.worker.tasks.app import MQueue
from tests.waiting import until, wait_until


@pytest.fixture
def registry(broker: FakeBroker) -> MQueue:
    return MQueue(broker.url, broker.token)


@pytest.fixture
async def client(broker: FakeBroker) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(broker.url, broker.token) as client:
        yield client


@pytest.fixture
def topic() -> str:
    return f"t-{uuid4().hex}"


async def until_gone(client: AsyncClient, *ids: int) -> None:
    """Waits until the broker knows none of them any more."""
    for id in ids:
        await until(lambda id=id: client.message(id), f"message {id} is gone", enough=lambda status: status is None)  # type: ignore[misc]


def held(registry: MQueue, broker: FakeBroker, topic: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Enqueues a job that waits for the first event, and sets the second one when it has begun."""
    gate, started = asyncio.Event(), asyncio.Event()

    @registry.task(topic=topic)
    async def hold() -> None:
        started.set()
        await gate.wait()

    broker.enqueue([hold.message()])
    return gate, started


# ── how jobs end ──


async def test_both_kinds_of_handler_run_and_are_acked(registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str) -> None:
    ran: list[tuple[str, int, str]] = []

    @registry.task(topic=topic)
    def threaded(n: int) -> None:
        ran.append(("threaded", n, threading.current_thread().name))

    @registry.task(topic=topic)
    async def looped(n: int) -> None:
        await asyncio.sleep(0)
        ran.append(("looped", n, threading.current_thread().name))

    ids = await client.enqueue_many([*(threaded.message(n) for n in range(10)), *(looped.message(n) for n in range(10))])
    async with working(registry, broker, concurrency=4) as worker:
        await until_gone(client, *ids)
    assert sorted((kind, n) for kind, n, _ in ran) == [(kind, n) for kind in ("looped", "threaded") for n in range(10)]
    assert {thread for kind, _, thread in ran if kind == "looped"} == {threading.current_thread().name}
    assert all(thread.startswith("mqueue-job-") for kind, _, thread in ran if kind == "threaded")
    assert worker.counts["ack"] == 20


async def test_a_failing_job_is_tried_again_then_dead_with_its_error(
    registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str
) -> None:
    attempts: list[int] = []

    @registry.task(topic=topic, max_retries=2)
    def fails() -> None:
        attempts.append(current().attempt)
        raise RateLimited("not good", retry_after=0.01)

    id = await client.enqueue_many([fails.message()])
    async with working(registry, broker):
        dead = await until(lambda: client.dead_letters(topic))
    assert attempts == [1, 2, 3]
    assert [d.id for d in dead] == id
    assert dead[0].error is not None and "RateLimited: not good" in dead[0].error and "in fails" in dead[0].error


async def test_a_snoozed_job_comes_again_with_no_attempt_spent(registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str) -> None:
    runs: list[tuple[int, float]] = []

    @registry.task(topic=topic)
    def snoozes() -> None:
        runs.append((current().attempt, time.monotonic()))
        if len(runs) < 3:
            raise Snooze(0.2)

    ids = await client.enqueue_many([snoozes.message()])
    async with working(registry, broker):
        await until_gone(client, *ids)
    assert [attempt for attempt, _ in runs] == [1, 1, 1]
    assert runs[1][1] - runs[0][1] > 0.15 and runs[2][1] - runs[1][1] > 0.15


async def test_a_policy_says_what_is_tried_again(registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str) -> None:
    attempts: list[str] = []
    policy = Retry(max=2, base=0.01, cap=0.01, jitter=0.5, on=(OSError,), never=(FileNotFoundError,))

    @registry.task(topic=topic, retry=policy)
    async def fails(kind: str) -> None:
        attempts.append(kind)
        raise {"busy": BlockingIOError, "gone": FileNotFoundError, "wrong": ValueError}[kind]

    await client.enqueue_many([fails.message(kind) for kind in ("busy", "gone", "wrong")])
    async with working(registry, broker, jitter=lambda: 0.5):
        await until(lambda: client.dead_letters(topic), "three are dead", enough=lambda dead: len(dead) == 3)
    assert sorted(attempts) == ["busy", "busy", "busy", "gone", "wrong"]
    assert {settle.retry_after for settle in broker.settled if settle.kind == "nack"} == {0.0075}
    assert sum(settle.kind == "bury" for settle in broker.settled) == 2


async def test_what_cannot_be_run_is_buried_at_once(registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str) -> None:
    ran = []

    @registry.task(topic=topic, name="number")
    async def number(n: int) -> None:
        ran.append(n)

    @registry.task(topic=topic, name="hopeless")
    async def hopeless() -> None:
        raise Bury("no use")

    payloads = [b"not a call", b'{"task":"number","args":["x"]}', b'{"task":"number"}', b'{"task":"hopeless"}']
    ids = [await client.enqueue(topic, payload) for payload in payloads]
    async with working(registry, broker):
        dead = await until(lambda: client.dead_letters(topic), "all are dead", enough=lambda dead: len(dead) == 4)
    errors = {d.id: d.error or "" for d in dead}
    reasons = ("not a call of a task", "argument 'n' does not fit", "missing", "no use")
    assert all(reason in errors[id] for id, reason in zip(ids, reasons, strict=True)), errors
    assert [d.attempts for d in dead] == [1, 1, 1, 1] and ran == []


async def test_an_unknown_task_goes_back_for_a_newer_worker(registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str) -> None:
    registry.task(topic=topic)(lambda: None)
    id = await client.enqueue(topic, b'{"task": "newer.thing"}', max_retries=100)
    async with working(registry, broker):
        status = await until(lambda: client.message(id), "an attempt is spent", enough=lambda status: status and status.attempts)
    assert status is not None and status.state != "dead"


async def test_current_tells_of_the_job_in_both_kinds(registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str) -> None:
    seen: dict[str, Any] = {}

    @registry.task(topic=topic, name="threaded")
    def threaded() -> None:
        seen["threaded"] = current()

    @registry.task(topic=topic, name="looped")
    async def looped() -> None:
        await asyncio.sleep(0)
        seen["looped"] = await asyncio.create_task(asyncio.to_thread(current))

    ids = await client.enqueue_many([t.options(metadata={"trace": t.name}).message() for t in (threaded, looped)])
    async with working(registry, broker):
        await until_gone(client, *ids)
    for id, name in zip(ids, ("threaded", "looped"), strict=True):
        job = seen[name]
        assert (job.id, job.task, job.topic, job.attempt, job.metadata) == (id, name, topic, 1, {"trace": name})
    with pytest.raises(RuntimeError):
        current()


async def test_priority_decides_across_both_kinds(registry: MQueue, broker: FakeBroker, client: AsyncClient, topic: str) -> None:
    order: list[int] = []

    @registry.task(topic=topic)
    async def note(n: int) -> None:
        order.append(n)

    ids = await client.enqueue_many([note.options(priority=n).message(n) for n in (3, 1, 2, 0)])
    async with working(registry, broker, concurrency=1):
        await until_gone(client, *ids)
    assert order == [0, 1, 2, 3]


async def test_several_namespaces_with_one_slot(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    ran: list[str] = []
    for name in ("one", "two", "three"):
        registry.task(topic=topic, name=name, namespace=name)(lambda name=name: ran.append(name))
    async with working(registry, broker, concurrency=1):
        for name in ("three", "one", "two"):
            await asyncio.to_thread(registry.get(name).enqueue)  # type: ignore[union-attr]
        await until(lambda: len(ran) == 3)
    assert sorted(ran) == ["one", "three", "two"]


# ── slots, polls, leases ──


async def test_no_more_is_fetched_than_can_run(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    gate, running, most = asyncio.Event(), 0, 0

    @registry.task(topic=topic)
    async def hold() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    broker.enqueue([hold.message() for _ in range(50)])
    async with working(registry, broker, concurrency=3):
        await until(lambda: running == 3)
        assert sum(s.leased for s in broker.live()) == 3
        gate.set()
        await until(lambda: not broker.live())
    assert most == 3
    assert max(poll.limit for poll in broker.polls) == 3


async def test_a_job_that_ends_is_settled_while_a_poll_waits(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    gate = asyncio.Event()

    @registry.task(topic=topic)
    async def hold() -> None:
        await gate.wait()

    broker.enqueue([hold.message()])
    async with working(registry, broker, concurrency=10):
        await until(lambda: broker.waiting == 1 and broker.live()[0].leased)
        gate.set()
        await until(lambda: not broker.live(), seconds=2)
        assert broker.waiting == 1


async def test_quick_jobs_share_requests(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    @registry.task(topic=topic)
    async def nothing() -> None: ...

    broker.enqueue([nothing.message() for _ in range(2000)])
    async with working(registry, broker, concurrency=100):
        await until(lambda: not broker.live())
    assert broker.requests["/poll"] < 200


async def test_a_lease_is_renewed_even_while_the_loop_is_blocked(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    runs = []

    @registry.task(topic=topic, lease=1)
    async def blocks() -> None:
        runs.append(current().attempt)
        time.sleep(3.0)  # the loop is blocked for three leases

    broker.enqueue([blocks.message()])
    async with working(registry, broker):
        await until(lambda: not broker.live())
    assert runs == [1]
    assert len(broker.extends) >= 3
    assert all(0.9 < item.lease <= 1.01 for item in broker.extends if item.lease is not None)


async def test_a_clock_that_differs_does_not_change_the_lease(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    broker.shift_clock(3600.0)
    gate = asyncio.Event()

    @registry.task(topic=topic, lease=1)
    async def hold() -> None:
        await gate.wait()

    broker.enqueue([hold.message()])
    async with working(registry, broker):
        await until(lambda: broker.extends)
        assert broker.extends[0].lease == 1
        gate.set()


async def test_a_lost_lease_cancels_the_handler_and_settles_nothing(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    @registry.task(topic=topic, lease=0.3)
    async def hold() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    [id] = broker.enqueue([hold.message()])
    async with working(registry, broker) as worker:
        await started.wait()
        broker.steal(id)
        async with asyncio.timeout(5):
            await cancelled.wait()
        await until(lambda: worker.counts["lost"] == 1)
    assert [item.id for item in broker.settled] == []


async def test_a_thread_can_see_that_its_lease_is_lost(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    seen: list[bool] = []

    @registry.task(topic=topic, lease=0.3)
    def look() -> None:
        job = current()
        seen.append(job.cancelled)
        seen.append(wait_until(lambda: job.cancelled))

    [id] = broker.enqueue([look.message()])
    async with working(registry, broker) as worker:
        await until(lambda: seen)
        broker.steal(id)
        await until(lambda: worker.counts["lost"] == 1)
    assert seen == [False, True] and broker.settled == []


# ── outages ──


async def test_results_wait_for_a_broker_that_comes_back(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    gate, started, ran = asyncio.Event(), asyncio.Event(), []

    @registry.task(topic=topic)
    async def hold(n: int) -> None:
        started.set()
        await gate.wait()
        ran.append(n)

    broker.enqueue([hold.message(n) for n in range(3)])
    async with working(registry, broker):
        await started.wait()
        await asyncio.to_thread(broker.server.down)
        gate.set()
        await until(lambda: len(ran) == 3)
        await asyncio.to_thread(broker.server.up)
        await until(lambda: not broker.live())
    assert sorted(ran) == [0, 1, 2]


async def test_a_poll_answered_503_is_repeated_with_its_settles(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    gate, started = held(registry, broker, topic)
    async with working(registry, broker) as worker:
        await until(lambda: broker.waiting == 1 and started.is_set())
        broker.refuse("/poll", times=2)
        gate.set()
        await until(lambda: not broker.live())
    assert worker.counts["ack"] == 1


async def test_a_token_that_is_refused_ends_the_worker(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    registry.task(topic=topic)(lambda: None)
    async with asyncio.timeout(10):
        with pytest.raises(Unauthorized):
            await Worker(registry, url=broker.url, token="wrong").run()


def test_pauses_grow_to_a_bound_and_honour_the_broker() -> None:
    assert [pause_s(n, None, 0.5) for n in (1, 2, 3)] == pytest.approx([0.075, 0.15, 0.3])
    assert all(pause_s(n, None, 0.999) <= 5.0 for n in range(1, 2000, 7))
    assert pause_s(1, 8.0, 0.0) == 8.0
    assert pause_s(1, 9999.0, 0.0) == 30.0


# ── stopping ──


async def test_stopping_lets_running_jobs_end(registry: MQueue, broker: FakeBroker, topic: str) -> None:
    gate, started = asyncio.Event(), asyncio.Event()

    @registry.task(topic=topic)
    async def hold() -> None:
        started.set()
        await gate.wait()

    broker.enqueue([hold.message() for _ in range(5)])
    worker = Worker(registry, url=broker.url, token=broker.token, concurrency=1)
    run = asyncio.create_task(worker.run())
    await started.wait()
    worker.stop()
    await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(10):
        assert await run == 0
    assert len(broker.live()) == 4 and not any(s.leased or s.attempts for s in broker.live())
    assert worker.counts == {"ack": 1} and worker.cut_off == 0


@pytest.mark.parametrize("hurry", [False, True])
async def test_what_outlives_the_grace_goes_back_unharmed(registry: MQueue, broker: FakeBroker, topic: str, hurry: bool) -> None:
    started, end = threading.Semaphore(0), threading.Event()

    @registry.task(topic=topic)
    async def looped() -> None:
        started.release()
        await asyncio.Event().wait()

    @registry.task(topic=topic)
    def threaded() -> None:
        started.release()
        end.wait(60)

    broker.enqueue([looped.message(), threaded.message()])
    worker = Worker(registry, url=broker.url, token=broker.token, grace=60 if hurry else 0.05)
    run = asyncio.create_task(worker.run())
    for _ in range(2):
        assert await asyncio.to_thread(started.acquire, timeout=10)
    worker.stop()
    if hurry:
        await asyncio.sleep(0)
        worker.stop()
    async with asyncio.timeout(10):
        assert await run == 0
    end.set()
    assert len(broker.live()) == 2 and not any(s.leased or s.attempts for s in broker.live())
    assert worker.counts == {"release": 2} and worker.cut_off == 1  # the one on the loop has ended by itself


async def test_an_unreachable_broker_does_not_keep_the_worker(
    registry: MQueue, broker: FakeBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqueue.worker.stopping.SETTLE_S", 0.2)
    gate, started = held(registry, broker, topic)
    worker = Worker(registry, url=broker.url, token=broker.token)
    run = asyncio.create_task(worker.run())
    await started.wait()
    await asyncio.to_thread(broker.server.down)
    gate.set()
    worker.stop()
    async with asyncio.timeout(10):
        assert await run == 1
    await asyncio.to_thread(broker.server.up)


# ── starting ──


def test_where_a_worker_fetches() -> None:
    registry = MQueue()
    with pytest.raises(WorkerError, match="no tasks found"):
        sources(registry, None, [])
    registry.task(topic="a", name="1")(lambda: None)
    registry.task(topic="b", name="2", namespace="n")(lambda: None)
    assert [str(s) for s in sources(registry, None, [])] == ["default/a", "n/b"]
    assert [str(s) for s in sources(registry, "x", ["b"])] == ["x/b"]
    with pytest.raises(WorkerError, match="no task has topic c; there are: a, b"):
        sources(registry, None, ["a", "c"])


def test_lanes_hold_what_one_poll_may_name() -> None:
    registry = MQueue()
    for n in range(70):
        registry.task(topic=f"t{n}", name=f"{n}")(lambda: None)
    registry.task(topic="t", name="other", namespace="n")(lambda: None)
    made = lanes(registry.topics())
    assert sorted((lane.namespace, len(lane.topics)) for lane in made) == [("default", 6), ("default", 64), ("n", 1)]
