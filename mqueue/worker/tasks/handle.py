"""A handle on a queued call tells how it is doing, and what came of it. It can be made again from the id, in another
process.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import msgspec

from mqueue import wire
from mqueue.errors import MQueueError, Pending, Unavailable
from mqueue.message import TopicName
from mqueue.worker.arguments import codec
from mqueue.worker.tasks.producer import Producer

R_co = TypeVar("R_co", covariant=True)
Cancelled = Literal["cancelled", "cancelling", "gone"]
WAIT_S = 20.0  # of one request
AWAY_S = 0.5  # between two tries, while the broker is away
ANSWER_S = 1.0  # beyond the caller's time, for the broker's last answer


class Called(Protocol):
    """A handle asks this of the task that was called (`task.Task`)."""

    name: str
    keeps_result: bool
    shape: codec.Shape


class NoResult(TypeError):
    """The task keeps no results: it has no `result=True`."""


class Handle(Generic[R_co]):
    """Two handles on one message are equal. `task` is None for a message that is no call of a task of this app."""

    __slots__ = ("_producer", "id", "name", "task")

    def __init__(self, producer: Producer, task: Called | None, id: int, name: TopicName) -> None:
        self._producer = producer
        self.task = task
        self.id = id
        self.name = name  # where it was queued

    def status(self) -> wire.Status | None:
        """Ask the broker what it knows of it; None when it is gone: it may be done, and have left no result."""
        return self._producer.client().message(self.id)

    async def status_async(self) -> wire.Status | None:
        return await (await self._producer.async_client()).message(self.id)

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for what the task returned, and return it in the type of its annotation. This waits for up to `timeout`
        seconds (None: for ever), and a second more where the broker does not answer.

        Raises NoResult at once for a task without `result=True`; JobFailed for a dead letter, with its error; NotFound
        where nothing is known of it: its result has expired, or it was taken away; TimeoutError; TypeError for a result
        of another form.
        """
        wait = Wait(self, timeout)
        client, of = self._producer.client(), {"topic": self.name.topic, "namespace": self.name.namespace}
        while True:
            try:
                packed = client.result(self.id, **of, wait=wait.next_s(), within=wait.within_s())
            except MQueueError as error:
                pause = wait.pause_s(error)
            else:
                return cast(R_co, self._unpack(packed))
            time.sleep(pause)

    async def result_async(self, timeout: float | None = None) -> R_co:
        """This is `result` on an event loop."""
        wait = Wait(self, timeout)
        client, of = await self._producer.async_client(), {"topic": self.name.topic, "namespace": self.name.namespace}
        while True:
            try:
                packed = await client.result(self.id, **of, wait=wait.next_s(), within=wait.within_s())
            except MQueueError as error:
                pause = wait.pause_s(error)
            else:
                return cast(R_co, self._unpack(packed))
            await asyncio.sleep(pause)

    def cancel(self) -> Cancelled:
        """Cancel the call. `cancelled`: it waited, and never runs; `cancelling`: it runs, and its worker is told to
        stop it; `gone`: it has ended.
        """
        return self._producer.client().cancel(self.id).status

    async def cancel_async(self) -> Cancelled:
        return (await (await self._producer.async_client()).cancel(self.id)).status

    def _unpack(self, packed: bytes) -> Any:
        return msgspec.json.decode(packed) if self.task is None else self.task.shape.unpack_result(packed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<handle {self.id} {self.task.name if self.task is not None else self.name}>"


class Wait:
    """This decides how long to wait for a result, and does not wait itself. Raises NoResult."""

    def __init__(self, handle: Handle[Any], timeout: float | None) -> None:
        if handle.task is not None and not handle.task.keeps_result:
            raise NoResult(f"task {handle.task.name} keeps no results: give it result=True")
        self._handle = handle
        self._timeout = timeout
        self._until = float("inf") if timeout is None else time.monotonic() + timeout

    def next_s(self) -> float:
        """The broker may wait for so long, within one request."""
        return max(0.0, min(WAIT_S, self._until - time.monotonic()))

    def within_s(self) -> float:
        """The request may take so long, with what is sent again."""
        return max(0.0, self._until - time.monotonic()) + ANSWER_S

    def pause_s(self, error: MQueueError) -> float:
        """The next try comes after so long. Raises `error` where it is the answer, or the broker was away until the
        end; TimeoutError.
        """
        if not isinstance(error, Pending | Unavailable):
            raise error
        left = self._until - time.monotonic()
        if left <= 0 and isinstance(error, Pending):
            raise TimeoutError(f"{self._handle!r}: no result after {self._timeout:g} s ({error.detail})") from None
        if left <= 0 or (isinstance(error, Unavailable) and self._timeout is None):
            raise error
        return min(AWAY_S, left) if isinstance(error, Unavailable) else 0.0


def handle_of(producer: Producer, id: int, item: wire.EnqueueItem, tasks: Mapping[str, Called]) -> Handle[Any]:
    """Make a handle on a message that was queued among others."""
    return Handle(producer, tasks.get(codec.task_name(item.payload) or ""), id, TopicName(item.namespace, item.topic))
