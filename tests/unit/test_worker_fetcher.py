"""The fetcher with a broker that is a function: a settle that cannot be sent does not hold up the others."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from msgspec import structs

from mqueue import wire
from mqueue.errors import Invalid, MQueueError, TooLarge
from mqueue.worker.app import MQueue
from mqueue.worker.fetcher import RESULT_BYTES, Fetcher
from mqueue.worker.job import Job
from mqueue.worker.lane import lanes

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
    fetcher._running = len(ids)  # as if they had come
    for id in ids:
        fetcher.finish(end(id), None)
    async with asyncio.timeout(5):
        while len(settled) < len(ids):
            await asyncio.sleep(0.001)
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
    async with asyncio.timeout(5):
        while not waits:
            await asyncio.sleep(0.001)
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
    fetcher._running = 7
    for id, size in enumerate((half, half, 1, half, 2 * half + 1, 0, half)):
        fetcher.finish(structs.replace(end(id), result=bytes(size)), None)
    async with asyncio.timeout(5):
        while len(ended) < 7:
            await asyncio.sleep(0.001)
    await fetcher.drain(5)
    assert sizes == [[half, half], [1, half], [2 * half + 1], [0, half]]
