"""What a task, an argument or an error can do wrong: its own job ends with an answer, the others run, and no slot is
lost.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from fake_broker import FakeBroker, Stored
from working import working

from mqueue import RateLimited, wire
from mqueue.worker.running import executor
from mqueue.worker.runtime import Worker
from mqueue.worker.sources import WorkerError
from mqueue.worker.tasks.app import MQueue
from tests.waiting import until

TOPIC = "mishaps"


@dataclass
class Picky:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError("no such thing")


class Rootless(RateLimited):
    """Has no `retry_after`: its class forgot what its base needs."""

    def __init__(self) -> None:
        Exception.__init__(self, "x")


@pytest.fixture
def ran() -> list[int]:
    return []


@pytest.fixture
def registry(broker: FakeBroker, ran: list[int]) -> MQueue:
    registry = MQueue(broker.url, broker.token)

    @registry.task(topic=TOPIC, name="fine")
    async def fine(n: int) -> None:
        ran.append(n)

    return registry


def call(name: str, *args: Any) -> wire.EnqueueItem:
    """As another program might have sent it."""
    return wire.EnqueueItem(topic=TOPIC, payload=msgspec.json.encode({"task": name, "args": args}), max_retries=0)


async def the_only_one_dead(registry: MQueue, broker: FakeBroker, ran: list[int], bad: wire.EnqueueItem) -> Stored:
    """Run `bad` among good calls, then more of these than there are slots."""
    broker.enqueue([bad, *(call("fine", n) for n in range(3))])
    async with working(registry, broker, concurrency=4):
        await until(lambda: len(ran) == 3)
        broker.enqueue([call("fine", n) for n in range(3, 20)])
        await until(lambda: len(ran) == 20 and not broker.live())
    [dead] = broker.dead()
    assert dead.attempts == 1
    return dead


async def test_an_argument_that_breaks_as_it_is_made_is_buried(registry: MQueue, broker: FakeBroker, ran: list[int]) -> None:
    @registry.task(topic=TOPIC, name="picky")
    async def picky(what: Picky) -> None: ...

    dead = await the_only_one_dead(registry, broker, ran, call("picky", {"n": -1}))
    assert dead.error is not None and "argument 'what' does not fit: 'no such thing'" in dead.error
    assert [settle.kind for settle in broker.settled if settle.id == dead.id] == ["bury"]


async def test_whatever_else_goes_wrong_before_a_job_is_tried_again(
    registry: MQueue, broker: FakeBroker, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    @registry.task(topic=TOPIC, name="odd")
    async def odd() -> None: ...

    def break_down(*_: object) -> None:
        raise LookupError("out of order")

    monkeypatch.setattr(odd.shape, "fit", break_down)
    dead = await the_only_one_dead(registry, broker, ran, call("odd"))
    assert dead.error is not None and dead.error.startswith("LookupError: out of order")
    assert [settle.kind for settle in broker.settled if settle.id == dead.id] == ["nack"]


async def test_without_a_thread_to_run_in_it_is_tried_again(
    registry: MQueue, broker: FakeBroker, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    @registry.task(topic=TOPIC, name="threaded")
    def threaded() -> None:
        ran.append(-1)

    class NoMore(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(executor, "threading", type("", (), {"Thread": NoMore, "Semaphore": threading.Semaphore}))
    dead = await the_only_one_dead(registry, broker, ran, call("threaded"))
    assert dead.error is not None and dead.error.startswith("RuntimeError: can't start new thread")


async def test_annotations_that_cannot_be_read_are_told_before_anything_runs(registry: MQueue, broker: FakeBroker) -> None:
    def puzzling(what: Any) -> None: ...

    puzzling.__annotations__["what"] = "NoSuchType"
    registry.task(topic=TOPIC, name="puzzling")(puzzling)
    async with asyncio.timeout(10):
        with pytest.raises(WorkerError, match=r"task puzzling: .*NoSuchType"):
            await Worker(registry, url=broker.url, token=broker.token).run()


@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_error_that_breaks_when_asked_still_ends_its_job(
    registry: MQueue, broker: FakeBroker, ran: list[int], in_thread: bool
) -> None:
    def fail() -> None:
        raise Rootless

    async def fail_on_loop() -> None:
        fail()

    registry.task(topic=TOPIC, name="rootless")(fail if in_thread else fail_on_loop)
    dead = await the_only_one_dead(registry, broker, ran, call("rootless"))
    assert dead.error is not None and "Rootless: x" in dead.error


def test_a_misfit_that_unicode_cannot_hold_is_told(registry: MQueue, broker: FakeBroker, ran: list[int]) -> None:
    @dataclass
    class Garbled:
        n: int

        def __post_init__(self) -> None:
            raise ValueError("bad \ud800\0" + "ü" * 300_000)

    def garbled(what: Any) -> None: ...

    garbled.__annotations__["what"] = Garbled
    registry.task(topic=TOPIC, name="garbled")(garbled)
    dead = asyncio.run(the_only_one_dead(registry, broker, ran, call("garbled", {"n": 1})))
    assert dead.error is not None and r"does not fit: bad \ud800\x00ü" in dead.error


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrap(*args: Any) -> Any:
        return function(*args)

    return wrap


@pytest.mark.filterwarnings("error")  # "was never awaited"
@pytest.mark.parametrize("kind", ["coroutine", "generator", "async_generator", "Promise"])
async def test_a_task_whose_body_would_never_run_is_buried(registry: MQueue, broker: FakeBroker, ran: list[int], kind: str) -> None:
    async def coroutine() -> None:
        ran.append(-1)

    def generator() -> Iterator[None]:
        yield ran.append(-1)

    async def async_generator() -> AsyncIterator[None]:
        yield ran.append(-1)

    class Promise:
        def __await__(self) -> Iterator[None]:
            yield ran.append(-1)

    function = {"coroutine": coroutine, "generator": generator, "async_generator": async_generator, "Promise": Promise}[kind]
    registry.task(topic=TOPIC, name="unrun")(wrapped(function))
    dead = await the_only_one_dead(registry, broker, ran, call("unrun"))
    assert dead.error is not None and f"gave back a {kind}" in dead.error and "async def" in dead.error
    assert -1 not in ran
    assert [settle.kind for settle in broker.settled if settle.id == dead.id] == ["bury"]
