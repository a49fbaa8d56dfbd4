"""Jobs are traced by `MQueue(middleware=[LogContext(), OpenTelemetry()])`.

An enqueue is a `send` span of kind producer; its context goes along in the messages' metadata (`traceparent`, or what
else the global propagator writes). Each run of a handler is a `process` span of kind consumer, a child of that span and
linked to it. Names and attributes follow the semantic conventions for messaging. Only the API is used: without an SDK
all of it does nothing.

A batch is one span, of a trace of its own, linked to the enqueue of each of its messages. It has failed where
one of its items has.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mqueue import wire
from mqueue.contrib import metadata
from mqueue.worker.running.batch import failed_items
from mqueue.worker.tasks.job import Current
from mqueue.worker.tasks.middleware import Middleware
from mqueue.worker.tasks.signals import Snooze

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError("mqueue.contrib.opentelemetry needs the OpenTelemetry API: pip install 'mqueue[opentelemetry]'") from error

SYSTEM = "mqueue"
PUT_OFF = (Snooze, asyncio.CancelledError)  # no failures: it comes again
Attributes = dict[str, str | int]


class OpenTelemetry(Middleware):
    """`tracer_provider` is None for the global one. `continue_trace=False`: a run begins a trace of its own, only
    linked to the enqueue.

    A message with an idempotency key carries no context, since the same key with other metadata is refused.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None, *, continue_trace: bool = True) -> None:
        self._tracer = trace.get_tracer("mqueue", tracer_provider=tracer_provider)
        self._continue_trace = continue_trace

    @contextmanager
    def enqueue(self, messages: Sequence[wire.EnqueueItem]) -> Iterator[None]:
        topics = sorted({message.topic for message in messages})
        name = f"send {topics[0]}" if len(topics) == 1 else "send"
        with self._span(name, SpanKind.PRODUCER, _of_send(topics, messages)):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            metadata.add(messages, headers)
            yield

    @contextmanager
    def run(self, job: Current) -> Iterator[None]:
        links = [link for each in job.batch or [job] if (link := _link(each)) is not None]
        parent = propagate.extract(metadata.text(job.metadata)) if self._continue_trace else None
        if job.batch:
            parent = Context()
        with self._span(f"process {job.topic}", SpanKind.CONSUMER, _of_run(job), parent, links) as span:
            yield
            _tell_items(job, span)

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: Context | None = None, links: Sequence[Link] = ()
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except PUT_OFF as put_off:
                span.set_attribute("mqueue.outcome", type(put_off).__name__)
                raise
            except BaseException as raised:
                _failed(span, raised)
                raise


def _link(job: Current) -> Link | None:
    """Returns a link to the enqueue of its message."""
    origin = trace.get_current_span(propagate.extract(metadata.text(job.metadata), Context())).get_span_context()
    return Link(origin, {"messaging.message.id": str(job.id)}) if origin.is_valid else None


def _tell_items(job: Current, span: Span) -> None:
    """A batch whose handler has returned has failed if one of its items has."""
    failed = [(item, wrong) for item, wrong in failed_items(job) if not isinstance(wrong, PUT_OFF)]
    for item, wrong in failed:
        span.record_exception(wrong, {"messaging.message.id": str(item.id)})
    if failed:
        kinds = {type(wrong).__qualname__ for _, wrong in failed}
        span.set_attribute("error.type", kinds.pop() if len(kinds) == 1 else "_OTHER")
        span.set_status(Status(StatusCode.ERROR, f"{len(failed)} of {len(job.batch)} items failed"))


def _failed(span: Span, error: BaseException) -> None:
    span.record_exception(error)
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def _of_send(topics: Sequence[str], messages: Sequence[wire.EnqueueItem]) -> Attributes:
    attributes: Attributes = {"messaging.system": SYSTEM, "messaging.operation.name": "send", "messaging.operation.type": "send"}
    if len(topics) == 1:
        attributes["messaging.destination.name"] = topics[0]
    if len(messages) == 1:
        attributes["messaging.message.body.size"] = len(messages[0].payload)
        attributes["mqueue.namespace"] = messages[0].namespace
    else:
        attributes["messaging.batch.message_count"] = len(messages)
    return attributes


def _of_run(job: Current) -> Attributes:
    attributes: Attributes = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.topic,
        "mqueue.namespace": job.namespace,
        "mqueue.task": job.task,
    }
    if job.batch:
        return {**attributes, "messaging.batch.message_count": len(job.batch)}
    return {**attributes, "messaging.message.id": str(job.id), "mqueue.attempt": job.attempt}
