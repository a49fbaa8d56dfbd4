"""While a test has one of the fixtures, what any app would send to its broker goes to the test."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol
from unittest import mock

from mqueue import wire
from mqueue.testing.answers import Answers, Asked, AsyncAnswers
from mqueue.worker.arguments import codec
from mqueue.worker.tasks.app import MQueue, apps
from mqueue.worker.tasks.producer import Producer
from mqueue.worker.tasks.task import App, Task


class Carrier(Protocol):
    """It takes what `app` sends, once the app's middleware has seen it, and gives the ids, in order."""

    def carry(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]: ...

    async def carry_async(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]: ...


_carrier: Carrier | None = None


class Local(Carrier, Asked, Protocol):
    """It is a carrier that answers what handles ask, too."""


def redirect_all(local: Local) -> AbstractContextManager[None]:
    """This is `redirect`, and handles ask `local`."""

    async def async_client(producer: Producer) -> AsyncAnswers:
        return AsyncAnswers(local)

    return redirect(local, client=lambda producer: Answers(local), async_client=async_client)


@contextmanager
def redirect(carrier: Carrier, **more: Any) -> Iterator[None]:
    """`more` are other attributes of `Producer` meanwhile. Raises RuntimeError where another
    carrier has them already.
    """
    global _carrier  # noqa: PLW0603
    if _carrier is not None:
        raise RuntimeError("a test has one of the fixtures mqueue_inline, mqueue_manual and mqueue_broker")

    def enqueue_many(producer: Producer, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return carrier.carry(_app_of(producer), items)

    async def enqueue_many_async(producer: Producer, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return await carrier.carry_async(_app_of(producer), items)

    _carrier = carrier
    try:
        with mock.patch.multiple(Producer, enqueue_many=enqueue_many, enqueue_many_async=enqueue_many_async, **more):
            yield
    finally:
        _carrier = None


def _app_of(producer: Producer) -> MQueue:
    return next(app for app in apps() if app.producer is producer)


def task_of(app: App, item: wire.EnqueueItem) -> tuple[Task[..., Any], list[Any], dict[str, Any]]:
    """Returns the call that a message is: a task and its arguments, as a worker would have them. Raises
    LookupError, codec.Misfit.
    """
    call = codec.decode(item.payload)
    task = app.get(call.task)
    if task is None:
        raise LookupError(f"the app that enqueued it has no task {call.task!r}")
    return task, *task.shape.fit(call.args, call.kwargs)
