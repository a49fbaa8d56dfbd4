"""One delivery being run, and what its handler may ask about it."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqueue import wire

if TYPE_CHECKING:
    from mqueue.worker.task import Task


class Job:
    """`ended`: it has its outcome, or was given up. `lost`: its lease is another's, so nothing is settled."""

    __slots__ = ("args", "cancel", "ended", "kwargs", "lease", "lost", "message", "renew_at", "stopping", "task")

    def __init__(self, message: wire.Message, task: "Task[..., Any]", args: list[Any], kwargs: dict[str, Any], lease: float) -> None:
        self.message = message
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.lease = lease  # seconds
        self.renew_at = 0.0  # monotonic seconds
        self.ended = False
        self.lost = False
        self.stopping = False  # cancelled because the worker stops
        self.cancel: Callable[[], object] | None = None  # set while a handler runs on the loop


@dataclass(frozen=True, slots=True)
class Current:
    """The job that is running here. `attempt` counts from 1; `metadata` is what the enqueuer added."""

    id: int
    namespace: str
    topic: str
    task: str
    attempt: int
    max_retries: int
    metadata: dict[str, Any]


running: ContextVar[Job | None] = ContextVar("mqueue_job", default=None)


def current() -> Current:
    """The running job, inside a task's handler. Raises RuntimeError elsewhere."""
    job = running.get()
    if job is None:
        raise RuntimeError("mqueue.current() is for a handler that a worker runs")
    message = job.message
    metadata = message.metadata if isinstance(message.metadata, dict) else {}
    return Current(
        message.id, message.namespace, message.topic, job.task.name, message.attempt, message.max_retries, metadata
    )  # fmt: skip
