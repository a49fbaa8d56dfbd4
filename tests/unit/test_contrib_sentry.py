"""Events and transactions of the real Sentry SDK, caught at its transport."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from fake_broker import FakeBroker, start
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from working import working

from mqueue import Bury, LogContext, MQueue, RateLimited, Retry, Snooze
from mqueue.contrib.sentry import Sentry
from mqueue.testing import Drained, Manual
from tests.waiting import until


class Caught(Transport):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []
        self.transactions: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            payload = item.payload.json
            if payload is not None and item.type in ("event", "transaction"):
                (self.events if item.type == "event" else self.transactions).append(payload)


@pytest.fixture
def caught() -> Iterator[Caught]:
    transport = Caught()
    with sentry_sdk.isolation_scope(), sentry_sdk.new_scope():
        sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=transport, traces_sample_rate=1.0, auto_enabling_integrations=False)
        try:
            yield transport
        finally:
            sentry_sdk.get_client().close(timeout=0)
            sentry_sdk.get_global_scope().set_client(None)


def app(*ignore: type[BaseException]) -> MQueue:
    return MQueue("http://127.0.0.1:9", middleware=[LogContext(), Sentry(ignore)])


@pytest.mark.parametrize("on_loop", [True, False])
def test_a_failed_run_is_one_event_with_its_tags(caught: Caught, mqueue_manual: Manual, on_loop: bool) -> None:
    def handler() -> None:
        raise ValueError("wrong")

    async def handler_async() -> None:
        handler()

    app().task(name="ship", topic="orders", retry=Retry(max=1))(handler_async if on_loop else handler).enqueue()
    id = mqueue_manual.enqueued[0].id
    mqueue_manual.drain(to_the_end=True, dead_ok=True)
    assert [event["tags"] for event in caught.events] == [
        {"mqueue.task": "ship", "mqueue.message_id": str(id), "mqueue.attempt": str(attempt)} for attempt in (1, 2)
    ]
    [exception] = caught.events[0]["exception"]["values"]
    assert (exception["type"], exception["value"], exception["mechanism"]["type"]) == ("ValueError", "wrong", "mqueue")
    assert exception["mechanism"]["handled"] is False
    assert exception["stacktrace"]["frames"][-1]["function"] == "handler"
    sentry_sdk.capture_message("outside")
    assert "tags" not in caught.events[-1] or not caught.events[-1]["tags"]


def test_what_puts_a_job_off_is_no_event(caught: Caught, mqueue_manual: Manual) -> None:
    turns = iter([Snooze(1), RateLimited(retry_after=1), KeyError("ours"), Bury("never")])

    def handler() -> None:
        raise next(turns)

    app(KeyError).task(name="x", retry=Retry(max=9))(handler).enqueue()
    assert mqueue_manual.drain(to_the_end=True, dead_ok=True) == Drained(failed=2, snoozed=1, dead=1)
    assert [event["exception"]["values"][0]["type"] for event in caught.events] == ["Bury"]
    states = [transaction["contexts"]["trace"].get("status") for transaction in caught.transactions]
    assert states == [None, None, None, "internal_error"] or states == ["ok", "ok", "ok", "internal_error"]


def test_what_the_handler_captured_itself_is_not_captured_again(caught: Caught, mqueue_manual: Manual) -> None:
    def handler() -> None:
        try:
            raise ValueError("once")
        except ValueError:
            logging.getLogger("shop").exception("it failed")
            raise

    app().task(name="x", max_retries=0)(handler).enqueue()
    mqueue_manual.drain(dead_ok=True)
    assert len(caught.events) == 1


def test_the_trace_of_the_enqueuer_goes_on(caught: Caught, mqueue_manual: Manual) -> None:
    task = app().task(name="ship", topic="orders")(lambda: 1 / 0)
    with sentry_sdk.start_transaction(name="request"):
        task.enqueue()
        task.options(idempotency_key="k").enqueue()
    mqueue_manual.drain(to_the_end=True, dead_ok=True)
    request, run = caught.transactions[0], caught.transactions[1]
    [publish, _] = [span for span in request["spans"] if span["op"] == "queue.publish"]
    trace = run["contexts"]["trace"]
    assert (run["transaction"], trace["op"], trace["parent_span_id"]) == ("ship", "queue.process", publish["span_id"])
    assert trace["trace_id"] == request["contexts"]["trace"]["trace_id"] == caught.events[0]["contexts"]["trace"]["trace_id"]
    assert trace["data"]["messaging.message.id"] == str(mqueue_manual.enqueued[0].id)
    assert (trace["data"]["messaging.destination.name"], trace["data"]["messaging.message.retry.count"]) == ("orders", 0)
    assert mqueue_manual.enqueued[1].metadata == {}


def test_without_init_nothing_happens(mqueue_manual: Manual) -> None:
    task = app().task(name="x", max_retries=0)(lambda: 1 / 0)
    task.enqueue()
    assert mqueue_manual.drain(dead_ok=True) == Drained(dead=1)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with start() as broker:
        yield broker


@pytest.mark.parametrize("on_loop", [True, False])
async def test_each_failed_item_of_a_batch_is_an_event(caught: Caught, broker: FakeBroker, on_loop: bool) -> None:
    def many(items: list[int]) -> list[Exception | None]:
        return [None, ValueError("wrong"), Snooze(1), Bury("never"), KeyError("ours"), RateLimited(retry_after=1)]

    async def many_async(items: list[int]) -> list[Exception | None]:
        return many(items)

    queue = app(KeyError)
    task = queue.task(name="many", topic="orders", batch=6, batch_wait=5)(many_async if on_loop else many)
    ids = broker.enqueue([task.message(n) for n in range(6)])
    async with working(queue, broker):
        await until(lambda: len(broker.settled) == 6)
    assert [event["tags"] for event in caught.events] == [
        {"mqueue.task": "many", "mqueue.message_id": str(id), "mqueue.attempt": "1"} for id in (ids[1], ids[3])
    ]
    assert [event["exception"]["values"][0]["type"] for event in caught.events] == ["ValueError", "Bury"]
    [run] = caught.transactions
    assert (run["contexts"]["trace"]["status"], run["contexts"]["trace"]["data"]["messaging.batch.message_count"]) == ("internal_error", 6)


async def test_what_the_handler_of_a_batch_raises_is_one_event(caught: Caught, broker: FakeBroker) -> None:
    queue = app()

    @queue.task(topic="orders", batch=3, batch_wait=5, max_retries=0)
    def many(items: list[int]) -> None:
        raise ValueError("all")

    broker.enqueue([many.message(n) for n in range(3)])
    async with working(queue, broker):
        await until(lambda: len(broker.settled) == 3)
    assert len(caught.events) == 1
