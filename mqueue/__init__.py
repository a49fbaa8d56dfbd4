"""A job system for Python: `@task` marks a function, `task.enqueue(...)` queues a call of it, `mqueue worker` runs it.

    from mqueue import task

    @task(topic="emails", priority=5)
    def send(to: str, subject: str) -> None: ...

    send.enqueue("ada@example.org", subject="Hello")

What is heavy is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqueue import errors
    from mqueue.client import AsyncClient, Client
    from mqueue.errors import JobFailed
    from mqueue.worker.app import MQueue, enqueue_many, enqueue_many_async, task
    from mqueue.worker.handle import Handle, NoResult
    from mqueue.worker.job import Current, current
    from mqueue.worker.middleware import LogContext, Middleware
    from mqueue.worker.outcome import Bury, MemoryLimit, ProcessEnded, RateLimited, Snooze, TimeLimit
    from mqueue.worker.retry import Retry
    from mqueue.worker.runtime import Worker
    from mqueue.worker.task import Task

_HOME = {
    "AsyncClient": "mqueue.client",
    "Bury": "mqueue.worker.outcome",
    "Client": "mqueue.client",
    "Current": "mqueue.worker.job",
    "Handle": "mqueue.worker.handle",
    "JobFailed": "mqueue.errors",
    "LogContext": "mqueue.worker.middleware",
    "MQueue": "mqueue.worker.app",
    "MemoryLimit": "mqueue.worker.outcome",
    "Middleware": "mqueue.worker.middleware",
    "NoResult": "mqueue.worker.handle",
    "ProcessEnded": "mqueue.worker.outcome",
    "RateLimited": "mqueue.worker.outcome",
    "Retry": "mqueue.worker.retry",
    "Snooze": "mqueue.worker.outcome",
    "Task": "mqueue.worker.task",
    "TimeLimit": "mqueue.worker.outcome",
    "Worker": "mqueue.worker.runtime",
    "current": "mqueue.worker.job",
    "enqueue_many": "mqueue.worker.app",
    "enqueue_many_async": "mqueue.worker.app",
    "task": "mqueue.worker.app",
}

__all__ = [
    "AsyncClient",
    "Bury",
    "Client",
    "Current",
    "Handle",
    "JobFailed",
    "LogContext",
    "MQueue",
    "MemoryLimit",
    "Middleware",
    "NoResult",
    "ProcessEnded",
    "RateLimited",
    "Retry",
    "Snooze",
    "Task",
    "TimeLimit",
    "Worker",
    "current",
    "enqueue_many",
    "enqueue_many_async",
    "errors",
    "task",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("mqueue.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'mqueue' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
