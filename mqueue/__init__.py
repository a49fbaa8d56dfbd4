"""A job system for Python: `@task` marks a function, `task.enqueue(...)` queues a call of it, `mqueue worker` runs it.

    from mqueue import task

    @task(topic="emails", priority=5)
    def send(to: str, subject: str) -> None: ...

    send.enqueue("ada@example.org", subject="Hello")

Users import `mqueue`, `mqueue.client`, `mqueue.testing` and `mqueue.contrib`; everything else is ours, and may move.
What is heavy is imported when it is first used.

Who is authoritative. The vocabulary at the root does no I/O and imports none of the folders; broker and client share
`wire.py`, and neither adds fields of its own. The worker and the client know the wire, never the broker.

What failure does. Every error that is raised on purpose is in `errors.py`, with a code that is part of the API.

Which file to open:

    errors.py       every error raised on purpose: code, HTTP status, retryable or not
    message.py      what a message is: frozen types, limits of fields, ids
    lifecycle.py    the states of a message, and the table of its transitions
    wire.py         the bodies of the HTTP API, both directions
    schedule.py     when a schedule is due
    backoff.py      delays that grow
    clock.py        the only reader of time
    repeats.py      signals that come twice at once are one
    systemd.py      tells systemd that a service is ready, stops, lives
    tokens.py       makes tokens
    logs.py         structured logs on stderr
    paths.py        where a broker keeps its things on this machine
    bench.py        measures a broker that runs, for `mqueue bench`
    launch.py       starts a broker and a worker as processes, for the demo, the campaigns and the fixtures
    broker/         the queue: engine, log, Redis, PostgreSQL, daemons, HTTP
    worker/         runs tasks
    client/         talks to a broker
    contrib/        Django, FastAPI, Flask, OpenTelemetry, Sentry
    testing/        pytest fixtures for users' tests
    cli/            the command line
    demo/           `make demo`
    torture/        `mqueue torture`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqueue import errors
    from mqueue.client import AsyncClient, Client
    from mqueue.errors import JobFailed
    from mqueue.worker.runtime import Worker
    from mqueue.worker.tasks.app import MQueue, enqueue_many, enqueue_many_async, task
    from mqueue.worker.tasks.handle import Handle, NoResult
    from mqueue.worker.tasks.job import Current, current
    from mqueue.worker.tasks.middleware import LogContext, Middleware
    from mqueue.worker.tasks.retry import Retry
    from mqueue.worker.tasks.signals import Bury, MemoryLimit, ProcessEnded, RateLimited, Snooze, TimeLimit
    from mqueue.worker.tasks.task import Task

_HOME = {
    "AsyncClient": "mqueue.client",
    "Bury": "mqueue.worker.tasks.signals",
    "Client": "mqueue.client",
    "Current": "mqueue.worker.tasks.job",
    "Handle": "mqueue.worker.tasks.handle",
    "JobFailed": "mqueue.errors",
    "LogContext": "mqueue.worker.tasks.middleware",
    "MQueue": "mqueue.worker.tasks.app",
    "MemoryLimit": "mqueue.worker.tasks.signals",
    "Middleware": "mqueue.worker.tasks.middleware",
    "NoResult": "mqueue.worker.tasks.handle",
    "ProcessEnded": "mqueue.worker.tasks.signals",
    "RateLimited": "mqueue.worker.tasks.signals",
    "Retry": "mqueue.worker.tasks.retry",
    "Snooze": "mqueue.worker.tasks.signals",
    "Task": "mqueue.worker.tasks.task",
    "TimeLimit": "mqueue.worker.tasks.signals",
    "Worker": "mqueue.worker.runtime",
    "current": "mqueue.worker.tasks.job",
    "enqueue_many": "mqueue.worker.tasks.app",
    "enqueue_many_async": "mqueue.worker.tasks.app",
    "task": "mqueue.worker.tasks.app",
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
