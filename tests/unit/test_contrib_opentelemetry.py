"""Spans of enqueues and runs, by the real SDK with an exporter in memory."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fake_broker import FakeBroker, start
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from working import working

from mqueue import Bury, LogContext, MQueue, RateLimited, Retry, Snooze, current
from mqueue.contrib.opentelemetry import OpenTelemetry
from mqueue.testing import Drained, Inline, Manual
from tests.waiting import until


class Traces:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def take(self) -> list[ReadableSpan]:
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans

    def app(self, **options: bool) -> MQueue:
        return MQueue("http://127.0.0.1:9", middleware=[LogContext(), OpenTelemetry(self.provider, **options)])


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.provider.shutdown()


def ids(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


@pytest.mark.parametrize("on_loop", [True, False])
def test_a_run_is_a_child_of_its_enqueue_and_linked_to_it(traces: Traces, mqueue_manual: Manual, on_loop: bool) -> None:
    seen: list[trace.SpanContext] = []

    def handler() -> None:
        seen.append(trace.get_current_span().get_span_context())

    async def handler_async() -> None:
        handler()

    task = traces.app().task(topic="orders", name="ship")(handler_async if on_loop else handler)
    task.enqueue()
    id = mqueue_manual.enqueued[0].id
    [send] = traces.take()
    size = len(mqueue_manual.enqueued[0].message.payload)
    assert (send.name, send.kind, send.status.status_code) == ("send orders", SpanKind.PRODUCER, StatusCode.UNSET)
    assert dict(send.attributes or {}) == {
        "messaging.system": "mqueue", "messaging.operation.name": "send", "messaging.operation.type": "send",
        "messaging.destination.name": "orders", "messaging.message.body.size": size, "mqueue.namespace": "default",
    }  # fmt: skip
    assert f"{send.context.trace_id:032x}-{send.context.span_id:016x}" in mqueue_manual.enqueued[0].metadata["traceparent"]
    mqueue_manual.drain()
    [process] = traces.take()
    assert (process.name, process.kind, process.status.status_code) == ("process orders", SpanKind.CONSUMER, StatusCode.UNSET)
    assert dict(process.attributes or {}) == {
        "messaging.system": "mqueue", "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.destination.name": "orders", "messaging.message.id": str(id),
        "mqueue.namespace": "default", "mqueue.task": "ship", "mqueue.attempt": 1,
    }  # fmt: skip
    assert process.parent is not None
    assert (process.parent.trace_id, process.parent.span_id) == ids(send)
    [link] = process.links
    assert ((link.context.trace_id, link.context.span_id), dict(link.attributes or {})) == (ids(send), {"messaging.message.id": str(id)})
    assert [(each.trace_id, each.span_id) for each in seen] == [ids(process)]
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_trace_goes_on_from_job_to_job_and_from_the_caller(traces: Traces, mqueue_manual: Manual) -> None:
    app = traces.app()
    second = app.task(name="second")(lambda: None)
    first = app.task(name="first")(lambda: second.enqueue() and None)
    with traces.provider.get_tracer("test").start_as_current_span("request"):
        first.enqueue()
    mqueue_manual.drain()
    spans = traces.take()
    assert len(spans) == 5
    assert {span.context.trace_id for span in spans} == {spans[0].context.trace_id}


def test_without_continuing_a_run_is_only_linked(traces: Traces, mqueue_manual: Manual) -> None:
    traces.app(continue_trace=False).task(name="x")(lambda: None).enqueue()
    mqueue_manual.drain()
    send, process = traces.take()
    assert process.parent is None
    assert process.context.trace_id != send.context.trace_id
    assert [link.context.span_id for link in process.links] == [send.context.span_id]


def test_errors_are_on_the_span_and_what_is_put_off_is_none(traces: Traces, mqueue_manual: Manual) -> None:
    app = traces.app()
    raised = {1: ValueError("wrong"), 2: RateLimited(retry_after=1), 3: Snooze(1), 4: Bury("never")}
    turns = iter(raised.values())

    def handler() -> None:
        raise next(turns)

    app.task(name="x", retry=Retry(max=9))(handler).enqueue()
    assert mqueue_manual.drain(to_the_end=True, dead_ok=True) == Drained(failed=2, snoozed=1, dead=1)
    _, wrong, limited, snoozed, buried = traces.take()
    assert [s.status.status_code for s in (wrong, limited, buried)] == [StatusCode.ERROR] * 3
    assert wrong.status.description == "ValueError: wrong"
    assert (wrong.attributes or {})["error.type"] == "ValueError"
    [event] = wrong.events
    assert (event.name, (event.attributes or {})["exception.message"]) == ("exception", "wrong")
    assert (snoozed.status.status_code, snoozed.events, (snoozed.attributes or {})["mqueue.outcome"]) == (StatusCode.UNSET, (), "Snooze")


def test_an_enqueue_that_fails_is_an_error(traces: Traces) -> None:
    app = traces.app()
    task = app.task(name="x")(lambda: None)
    with pytest.raises(Exception, match="sent"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.producer, "enqueue_many", refuse)
        task.enqueue()
    [send] = traces.take()
    assert send.status.status_code == StatusCode.ERROR


def refuse(items: object) -> list[int]:
    raise ConnectionError("not sent")


def test_many_messages_are_one_span(traces: Traces, mqueue_inline: Inline) -> None:
    app = traces.app()
    task, other = app.task(name="x", topic="a")(lambda: None), app.task(name="y", topic="b")(lambda: None)
    asyncio.run(app.enqueue_many_async([task.message(), task.message(), other.message()]))
    *runs, send = traces.take()
    assert (send.name, (send.attributes or {})["messaging.batch.message_count"], len(runs)) == ("send", 3, 3)
    assert "messaging.destination.name" not in (send.attributes or {})
    assert {run.parent.span_id for run in runs if run.parent} == {send.context.span_id}


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with start() as broker:
        yield broker


async def batch_of(broker: FakeBroker, app: MQueue, verdicts: object, *sent: str | None) -> None:
    """One batch; each message with that `traceparent`."""

    @app.task(name="many", topic="orders", batch=len(sent), batch_wait=5)
    async def many(items: list[int]) -> object:
        if isinstance(verdicts, Exception):
            raise verdicts
        return verdicts

    broker.enqueue([many.options(metadata=None if each is None else {"traceparent": each}).message(n) for n, each in enumerate(sent)])
    async with working(app, broker):
        await until(lambda: len(broker.settled) == len(sent))


def parent(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


async def test_a_batch_is_a_span_linked_to_each_of_its_enqueues(broker: FakeBroker, traces: Traces) -> None:
    await batch_of(broker, traces.app(), None, parent(7), parent(8), None)
    [process] = traces.take()
    assert (process.name, process.parent, process.status.status_code) == ("process orders", None, StatusCode.UNSET)
    assert process.context.trace_id not in (7, 8)
    ids = [str(each.id) for each in broker.settled]
    assert [(link.context.trace_id, link.context.span_id, dict(link.attributes or {})) for link in process.links] == [
        (7, 7, {"messaging.message.id": ids[0]}),
        (8, 8, {"messaging.message.id": ids[1]}),
    ]
    assert dict(process.attributes or {}) == {
        "messaging.system": "mqueue", "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.destination.name": "orders", "messaging.batch.message_count": 3, "mqueue.namespace": "default", "mqueue.task": "many",
    }  # fmt: skip


async def test_a_batch_has_failed_where_an_item_has(broker: FakeBroker, traces: Traces) -> None:
    await batch_of(broker, traces.app(), [None, ValueError("wrong"), Snooze(1), Bury("never")], *[None] * 4)
    [process] = traces.take()
    assert (process.status.status_code, process.status.description) == (StatusCode.ERROR, "2 of 4 items failed")
    assert (process.attributes or {})["error.type"] == "_OTHER"
    told = [((event.attributes or {})["exception.message"], (event.attributes or {})["messaging.message.id"]) for event in process.events]
    ids = [str(each.id) for each in sorted(broker.settled, key=lambda each: each.id)]
    assert told == [("wrong", ids[1]), ("never", ids[3])]


async def test_a_batch_with_items_put_off_has_not_failed(broker: FakeBroker, traces: Traces) -> None:
    await batch_of(broker, traces.app(), [None, Snooze(1)], None, None)
    [process] = traces.take()
    assert (process.status.status_code, process.events) == (StatusCode.UNSET, ())


async def test_what_the_handler_of_a_batch_raises_is_on_its_span(broker: FakeBroker, traces: Traces) -> None:
    await batch_of(broker, traces.app(), ValueError("all"), None, None)
    [process] = traces.take()
    assert (process.status.description, len(process.events)) == ("ValueError: all", 1)


def test_metadata_of_the_caller_stays_and_too_much_is_left_out(traces: Traces, mqueue_manual: Manual) -> None:
    task = traces.app().task(name="x")(lambda: None)
    shared = {"a": 1, "traceparent": "mine"}
    task.options(metadata=shared).enqueue()
    assert shared == {"a": 1, "traceparent": "mine"}
    token = context.attach(baggage.set_baggage("k", "v" * 4_050))
    try:
        task.enqueue()
        task.options(metadata={"b": "x" * 3_900}).enqueue()
    finally:
        context.detach(token)
    task.options(idempotency_key="k").enqueue()
    task.options(idempotency_key="k").enqueue()  # the same message, in another trace
    first, second, third, keyed = (each.metadata for each in mqueue_manual.enqueued)
    assert first["traceparent"] == "mine"
    assert (first["a"], list(second), list(third), keyed) == (1, ["traceparent"], ["b", "traceparent"], {})
    assert mqueue_manual.drain() == Drained(done=4)


def test_strange_metadata_of_a_message_is_no_context(traces: Traces, mqueue_manual: Manual) -> None:
    task = traces.app().task(name="x")(lambda: current().id)
    task.options(metadata={"traceparent": 5, "tracestate": None, "baggage": ["x"]}).enqueue()
    mqueue_manual.drain()
    _, process = traces.take()
    assert (process.parent, process.links) == (None, ())


def test_without_the_library_the_import_says_what_to_install() -> None:
    for name, library in (("opentelemetry", "opentelemetry"), ("sentry", "sentry_sdk")):
        code = f"import sys; sys.modules[{library!r}] = None; import mqueue.contrib.{name}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"pip install 'mqueue[{name}]'" in done.stderr.splitlines()[-1]
