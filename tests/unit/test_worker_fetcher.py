"""The fetcher with a broker that is a function: a settle that cannot be sent does not hold up the others."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from msgspec import structs

from mqueue import wire
from mqueue.errors import Invalid, MQueueError, TooLarge, Unavailable
from mqueue.worker.polling.fetcher import Fetcher
from mqueue.worker.polling.lane import lanes
from mqueue.worker.polling.settles import RESULT_BYTES, End, Settles
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.job import Job
from tests.waiting import until

BAD = 7


def end(id: int) -> wire.PollSettle:
    return wire.PollSettle(id=id, topic="t", receipt="1-1", kind="ack")


class Broker:
    """Takes settles, but no batch with the bad one."""

    def __init__(self, error: Callable[[], Exception]) -> None:
        self._error = error
        self.taken: list[int] = []
        self.polls = 0
        self.ended = asyncio.Event()

    async def poll(self, request: wire.Poll) -> wire.Polled:
        await asyncio.sleep(0)
        self.polls += 1
        ids = [settle.id for settle in request.settle]
        if BAD in ids:
            raise self._error()
        if request.end:
            self.ended.set()
        if request.wait:
            await self.ended.wait()
        self.taken += ids
        return wire.Polled([wire.Verdict(id, "ok") for id in ids], [])


def refused(error: MQueueError) -> None:
    raise AssertionError(error)


@pytest.mark.parametrize(
    "error", [lambda: Invalid("no"), lambda: TooLarge("no"), lambda: "\ud800".encode(), lambda: TypeError("cannot be packed")]
)
@pytest.mark.parametrize("ids", [range(20), [BAD]])
async def test_only_the_settle_that_cannot_be_sent_is_given_up(error: Callable[[], Exception], ids: list[int]) -> None:
    settled: list[str | None] = []
    broker = Broker(error)

    def note(job: Job | None, status: str | None) -> None:
        settled.append(status)

    registry = MQueue()
    registry.task(topic="t")(lambda: None)
    fetcher = Fetcher(
        broker.poll, lanes(registry.topics()), 40, arrived=lambda message: None, settled=note, refused=refused, jitter=lambda: 0.0
    )
    fetcher.start()
    fetcher.slots.running = len(ids)  # as if they had come
    for id in ids:
        fetcher.finish(end(id), None)
    await until(lambda: len(settled) == len(ids))
    fetcher.close()
    assert await fetcher.drain(5) == 0
    assert sorted(broker.taken) == [id for id in ids if id != BAD]
    assert settled.count(None) == 1 and settled.count("ok") == len(ids) - 1
    assert broker.polls < len(ids) + 10


def message() -> wire.Message:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    return wire.Message(
        id=1, namespace="default", topic="t", priority=0, payload=b"", deliver_after=now, created_at=now, attempt=1, max_retries=3,
        receipt="1-1", lease_expires_at=now, lease=30.0,
    )  # fmt: skip


@pytest.mark.parametrize("heard", [True, False])
async def test_a_poll_that_waits_as_the_worker_stops_is_ended_by_name_and_what_it_brings_goes_back(heard: bool) -> None:
    ended = asyncio.Event()
    names: list[str | None] = []
    waits: list[str] = []
    taken: list[tuple[int, str]] = []

    async def poll(request: wire.Poll) -> wire.Polled:
        names.extend(request.end)
        if request.end and heard:
            ended.set()
        taken.extend((settle.id, settle.kind) for settle in request.settle)
        if not request.wait:
            return wire.Polled([wire.Verdict(settle.id, "ok") for settle in request.settle], [])
        waits.append(str(request.name))
        await ended.wait()
        return wire.Polled([], [message()])

    registry = MQueue()
    registry.task(topic="t")(lambda: None)

    def arrived(message: wire.Message) -> None:
        fetcher.finish(wire.PollSettle(id=message.id, topic="t", receipt="1-1", kind="release"), None)

    fetcher = Fetcher(poll, lanes(registry.topics()), 4, arrived=arrived, settled=lambda job, status: None, refused=refused, jitter=lambda: 0.0)
    fetcher.start()
    await until(lambda: waits)
    fetcher.close()
    assert await fetcher.drain(5) == 0
    assert set(names) == set(waits)
    assert taken == ([(1, "release")] if heard else [])


async def test_large_results_go_in_several_polls_and_one_is_always_sent() -> None:
    sizes: list[list[int]] = []

    async def poll(request: wire.Poll) -> wire.Polled:
        sizes.append([len(settle.result or b"") for settle in request.settle])
        return wire.Polled([wire.Verdict(settle.id, "ok") for settle in request.settle], [])

    app = MQueue()
    app.task(topic="t")(lambda: None)
    ended: list[str | None] = []
    fetcher = Fetcher(
        poll, lanes(app.topics()), 400, arrived=lambda message: None, settled=lambda _, status: ended.append(status), refused=refused,
        jitter=lambda: 0.0,
    )  # fmt: skip
    fetcher.close()
    half = RESULT_BYTES // 2
    fetcher.slots.running = 7
    for id, size in enumerate((half, half, 1, half, 2 * half + 1, 0, half)):
        fetcher.finish(structs.replace(end(id), result=bytes(size)), None)
    await until(lambda: len(ended) == 7)
    await fetcher.drain(5)
    assert sizes == [[half, half], [1, half], [2 * half + 1], [0, half]]


class Apart:
    """Does not answer for some topics: to settles of theirs, or to fetches."""

    def __init__(self, *, settles: Sequence[str] = (), fetches: Sequence[str] = ()) -> None:
        self.away = set(settles), set(fetches)
        self.settled: list[int] = []
        self.fetched: list[str] = []
        self.polls = 0

    async def poll(self, request: wire.Poll) -> wire.Polled:
        await asyncio.sleep(0)
        self.polls += 1
        settles, fetches = self.away
        if settles & {settle.topic for settle in request.settle} or (request.limit and fetches & {*request.topics}):
            raise Unavailable("away", retry_after=0.05)
        self.settled += [settle.id for settle in request.settle]
        self.fetched += request.topics if request.limit else []
        if request.wait:
            await asyncio.sleep(0.01)  # a short wait, so that polls do not spin
        return wire.Polled([wire.Verdict(settle.id, "ok") for settle in request.settle], [])


def fetching(broker: Apart, *namespaces: str) -> Fetcher:
    app = MQueue()
    for namespace in namespaces:
        app.task(topic=f"t-{namespace}", namespace=namespace, name=namespace)(lambda: None)
    return Fetcher(
        broker.poll,
        lanes(app.topics()),
        40,
        arrived=lambda message: None,
        settled=lambda job, status: None,
        refused=refused,
        jitter=lambda: 0.0,
    )


async def test_a_shard_that_takes_no_settles_holds_up_neither_the_others_nor_the_fetches() -> None:
    broker = Apart(settles=["away"])
    fetcher = fetching(broker, "n")
    fetcher.start()
    fetcher.slots.running = 20
    for id in range(10):
        fetcher.finish(structs.replace(end(id), topic="away"), None)
        fetcher.finish(structs.replace(end(100 + id), topic="here"), None)
    await until(lambda: len(broker.settled) == 10)
    broker.fetched.clear()
    await until(lambda: len(broker.fetched) >= 3)
    assert sorted(broker.settled) == [*range(100, 110)]
    broker.polls = 0
    await asyncio.sleep(0.5)  # time itself is the condition
    assert broker.polls < 30, "the pauses grow"
    broker.away[0].clear()
    await until(lambda: len(broker.settled) == 20)
    fetcher.close()
    assert await fetcher.drain(5) == 0


async def test_what_brings_results_does_not_hold_up_what_brings_none() -> None:
    """PostgreSQL keeps results; while it is away Redis still takes acks of the same topic."""
    taken: list[int] = []

    async def poll(request: wire.Poll) -> wire.Polled:
        if any(settle.result is not None for settle in request.settle):
            raise Unavailable("away")
        taken.extend(settle.id for settle in request.settle)
        return wire.Polled([wire.Verdict(settle.id, "ok") for settle in request.settle], [])

    broker = Apart()
    broker.poll = poll  # type: ignore[method-assign]
    fetcher = fetching(broker, "n")
    fetcher.close()
    fetcher.slots.running = 20
    for id in range(10):
        fetcher.finish(structs.replace(end(id), result=b"1"), None)
        fetcher.finish(end(100 + id), None)
    assert await fetcher.drain(0.5) == 10
    assert sorted(taken) == [*range(100, 110)]


async def test_a_lane_that_is_not_answered_waits_alone() -> None:
    broker = Apart(fetches=["t-away"])
    fetcher = fetching(broker, "away", "here")
    fetcher.start()
    await until(lambda: len(broker.fetched) >= 4)
    assert set(broker.fetched) == {"t-here"}
    broker.away[1].clear()
    fetcher.resume()
    await until(lambda: "t-away" in broker.fetched)
    fetcher.close()
    assert await fetcher.drain(5) == 0


async def test_a_drain_that_is_hurried_ends_soon() -> None:
    broker = Apart(settles=["t"])
    fetcher = fetching(broker, "n")
    fetcher.close()
    fetcher.slots.running = 1
    fetcher.finish(end(1), None)
    began = asyncio.get_running_loop().time()
    draining = asyncio.create_task(fetcher.drain(60))
    await until(lambda: broker.polls)
    fetcher.hurry(0.05)
    async with asyncio.timeout(5):
        assert await draining == 1
    assert asyncio.get_running_loop().time() - began < 5
    fetcher.hurry(1)


async def test_a_poll_that_is_given_up_before_it_begins_gives_back_its_slots() -> None:
    broker = Apart()
    fetcher = fetching(broker, "n")
    fetcher._look()
    fetcher.doubt()
    await until(lambda: len(broker.fetched) >= 2)
    fetcher.close()
    assert await fetcher.drain(5) == 0
    assert fetcher.slots.asked == 0


def test_of_a_kind_that_is_not_answered_one_poll_at_a_time_is_under_way() -> None:
    """Where it hangs, its others would take all the polls there are."""
    settles = Settles()
    settles.add(End(end(1), None))
    [first], apart = settles.take(0.0)
    assert not apart and settles.unanswered([first], 0.0, None, 0.0)
    settles.add(End(structs.replace(end(2), topic="other"), None))
    assert settles.due(0.0) == 1 and settles.take(0.0)[0][0].settle.id == 2
    later = settles.due_at()
    batch, apart = settles.take(later)
    assert [each.settle.id for each in batch] == [1] and apart
    settles.add(End(end(3), None))
    assert settles.due(later + 60) == 0 and settles.due_at() == float("inf") and settles.take(later + 60) == ([], False)
    settles.landed(batch)
    settles.unanswered(batch, later, None, 0.0)
    assert later < settles.due_at() < later + 60
    batch, apart = settles.take(settles.due_at())
    settles.landed(batch)
    assert [each.settle.id for each in batch] == [1, 3] and settles.answered(batch)
    assert (len(settles), settles.due_at()) == (0, 0.0)
