"""What stands in a client's place while a test has a namespace of its own: whatever is asked of another, is asked of
that.
"""

import inspect
from collections.abc import Callable
from typing import Any

import fake_broker
import pytest

from mqueue import MQueue, wire
from mqueue.client import AsyncClient, Client
from mqueue.client.protocol import Call
from mqueue.errors import NotFound
from mqueue.testing import ManualClock, TestBroker
from mqueue.testing.real.here import Here

ELSEWHERE: Any = {"namespace": "elsewhere"}
PARTS: dict[str, Callable[[Client], Any]] = {
    "enqueue": lambda c: c.enqueue("t", b"", **ELSEWHERE),
    "enqueue_many": lambda c: c.enqueue_many([wire.EnqueueItem(topic="t", **ELSEWHERE)]),
    "fetch": lambda c: c.fetch("t", **ELSEWHERE),
    "poll": lambda c: c.poll(wire.Poll(**ELSEWHERE, settle=[wire.PollSettle(id=1, topic="t", kind="ack", **ELSEWHERE)])),
    "ack": lambda c: c.ack([wire.SettleItem(id=1, topic="t", **ELSEWHERE)]),
    "nack": lambda c: c.nack([wire.SettleItem(id=1, topic="t", **ELSEWHERE)], error="x"),
    "extend": lambda c: c.extend([wire.ExtendItem(id=1, topic="t", **ELSEWHERE)]),
    "dead_letters": lambda c: c.dead_letters("t", **ELSEWHERE, limit=1, after=3),
    "delete_dead": lambda c: c.delete_dead("t", [1], **ELSEWHERE),
    "topics": lambda c: c.topics("elsewhere"),
    "workers": lambda c: c.workers(),
    "cancelled": lambda c: c.cancelled(["elsewhere"]),
    "result": lambda c: c.result(1, topic="t", **ELSEWHERE),
    "schedules": lambda c: c.schedules("elsewhere"),
    "schedule": lambda c: c.schedule("a", **ELSEWHERE) or c.pause_schedule("a", **ELSEWHERE),  # None where there is none
    "put_schedule": lambda c: c.put_schedule("a", wire.ScheduleItem(topic="t", every=1, **ELSEWHERE)),
    "pause_schedule": lambda c: c.pause_schedule("a", **ELSEWHERE),
    "resume_schedule": lambda c: c.resume_schedule("a", **ELSEWHERE),
    "run_schedule": lambda c: c.run_schedule("a", **ELSEWHERE),
    "delete_schedule": lambda c: c.delete_schedule("a", **ELSEWHERE),
}
OF_NO_NAMESPACE = {"message", "cancel", "tell", "health", "ready", "close"}


class Seen(Client):
    """What it would send. All it asks for is not there."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", "no")
        self.calls: list[Call[Any]] = []

    def _call(self, call: Call[Any]) -> Any:
        self.calls.append(call)
        raise NotFound


def test_all_methods_are_tried_here() -> None:
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert public == {*PARTS, *OF_NO_NAMESPACE}


@pytest.mark.parametrize("call", PARTS.values(), ids=PARTS)
def test_the_tests_namespace_stands_for_any_other(call: Callable[[Client], Any]) -> None:
    client = Seen()
    here: Any = Here(client, "the-tests")
    with pytest.raises(NotFound):
        call(here)
    for each in client.calls:
        said = each.path.encode() + (each.body or b"")
        assert b"the-tests" in said and b"elsewhere" not in said


def test_it_has_what_a_client_has() -> None:
    here: Any = Here(Seen(), "n")
    assert (here.url, here.namespace, here.close()) == ("http://127.0.0.1:9", "n", None)
    for wrong in ("_pool", "nothing"):
        with pytest.raises(AttributeError):
            getattr(here, wrong)


async def test_results_and_dead_letters_as_djangos_backend_asks(broker: fake_broker.FakeBroker) -> None:
    app = MQueue()

    @app.task(name="half", result=True, max_retries=0, namespace="django")
    def half(number: int) -> float:
        if number < 0:
            raise LookupError(number)
        return number / 2

    with Client(broker.url, broker.token) as client, TestBroker(broker.url, broker.token, client).connected() as test:
        good, bad = half.enqueue(3), half.enqueue(-1)
        await test.run_until_idle_async(timeout=10)
        asked: Any = app.producer.client()
        asked_async: Any = await app.producer.async_client()
        assert (asked.namespace, asked_async.namespace, asked_async.url) == (test.namespace, test.namespace, broker.url)
        assert asked.result(good.id) == await asked_async.result(good.id) == b"1.5"
        for page in (
            asked.dead_letters("default", namespace="django", limit=1, after=bad.id - 1),
            await asked_async.dead_letters("default", namespace="django", limit=1, after=bad.id - 1),
        ):
            assert [dead.id for dead in page] == [bad.id]
        assert ManualClock().now >= page[0].died_at
        with pytest.raises(AttributeError):
            _ = asked_async.nothing
    assert not hasattr(AsyncClient, "nothing")
