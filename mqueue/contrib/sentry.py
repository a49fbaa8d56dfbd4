"""Errors of handlers go to Sentry: `sentry_sdk.init(…)`, then `MQueue(middleware=[LogContext(), Sentry()])`.

Each failed run is one event, with the tags `mqueue.task`, `mqueue.message_id` and `mqueue.attempt`, in the trace of
whoever enqueued it. What only puts a job off (Snooze, RateLimited, a worker that stops) is no event. Where tracing is
on, a run is a transaction. A batch is one run, in the trace of its first message; an item that its handler says has
failed is an event of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mqueue import wire
from mqueue.contrib import metadata
from mqueue.worker.running.batch import failed_items
from mqueue.worker.tasks.job import Current
from mqueue.worker.tasks.middleware import Middleware
from mqueue.worker.tasks.signals import RateLimited, Snooze

try:
    import sentry_sdk
    from sentry_sdk.tracing import Span
    from sentry_sdk.utils import event_from_exception
except ImportError as error:
    raise ImportError("mqueue.contrib.sentry needs Sentry's SDK: pip install 'mqueue[sentry]'") from error

MECHANISM = {"type": "mqueue", "handled": False}


class Sentry(Middleware):
    """`ignore` has further errors, beside Snooze and RateLimited, that Sentry is not told of.

    A message with an idempotency key carries no trace, since the same key with other metadata is refused.
    """

    def __init__(self, ignore: tuple[type[BaseException], ...] = ()) -> None:
        self._ignore = (Snooze, RateLimited, *ignore)

    @contextmanager
    def enqueue(self, messages: Sequence[wire.EnqueueItem]) -> Iterator[None]:
        topics = sorted({message.topic for message in messages})
        with sentry_sdk.start_span(op="queue.publish", name=" ".join(topics)) as span:
            span.set_data("messaging.system", "mqueue")
            if len(topics) == 1:
                span.set_data("messaging.destination.name", topics[0])
            headers = {"sentry-trace": sentry_sdk.get_traceparent(), "baggage": sentry_sdk.get_baggage()}
            metadata.add(messages, metadata.text(headers))
            yield

    @contextmanager
    def run(self, job: Current) -> Iterator[None]:
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            _tag(scope, job)
            put_off = None
            with self._transaction(job) as span:
                try:
                    yield
                except Exception as raised:
                    if not isinstance(raised, self._ignore):
                        _capture(raised)
                        raise
                    put_off = raised  # raised after the transaction, which has not failed
                else:
                    self._tell_items(job, span)
            if put_off is not None:
                raise put_off

    def _tell_items(self, job: Current, span: Span) -> None:
        for item, wrong in failed_items(job):
            if isinstance(wrong, Exception) and not isinstance(wrong, self._ignore):
                span.set_status("internal_error")
                with sentry_sdk.new_scope() as scope:
                    _tag(scope, item)
                    _capture(wrong)

    @contextmanager
    def _transaction(self, job: Current) -> Iterator[Span]:
        transaction = sentry_sdk.continue_trace(metadata.text(job.metadata), op="queue.process", name=job.task, source="task")
        with sentry_sdk.start_transaction(transaction) as span:
            span.set_data("messaging.system", "mqueue")
            span.set_data("messaging.destination.name", job.topic)
            span.set_data("messaging.message.id", str(job.id))
            span.set_data("messaging.message.retry.count", job.attempt - 1)
            if job.batch:
                span.set_data("messaging.batch.message_count", len(job.batch))
            yield span


def _tag(scope: sentry_sdk.Scope, job: Current) -> None:
    for name, value in (("task", job.task), ("message_id", job.id), ("attempt", job.attempt)):
        scope.set_tag(f"mqueue.{name}", str(value))


def _capture(error: Exception) -> None:
    event, hint = event_from_exception(error, client_options=sentry_sdk.get_client().options, mechanism=MECHANISM)
    sentry_sdk.capture_event(event, hint=hint)
