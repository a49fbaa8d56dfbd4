"""Django's results are made from the state of a message, from its dead letter, or from what a task that is
done has left (`Kept`).

Of what has not succeeded a broker knows less than Django asks: not who ran it and when, and of its errors only the
last. In such a result the times are None, and the workers UNKNOWN, as many as there were attempts.
"""

import builtins
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from inspect import isclass
from typing import Any, NamedTuple

import msgspec
from django.conf import settings
from django.tasks.base import TASK_MAX_PRIORITY, TASK_MIN_PRIORITY, Task, TaskError, TaskResult, TaskResultStatus
from django.utils import timezone

from mqueue import wire
from mqueue.errors import JobFailed

UNKNOWN = "unknown"
STATES = {"leased": TaskResultStatus.RUNNING, "dead": TaskResultStatus.FAILED}  # all others: ready
_CLASS = re.compile(r"([^\W\d]\w*(?:\.(?:[^\W\d]\w*|<locals>))*)(?=:|\n|$)")  # what an exception's own text begins with
_TRACE = re.compile(r"\n\n(?=Traceback \(most recent call last\):\n|…\n)")


class Kept(msgspec.Struct):
    """It is all of a result that is done, as it is kept for its message. `priority`: Django's."""

    task: str  # its path
    namespace: str
    queue: str
    priority: int
    args: list[Any]
    kwargs: dict[str, Any]
    value: Any
    worker_ids: list[str]
    enqueued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class Call(NamedTuple):
    """A message asks for this: the task by its path."""

    path: str
    args: list[Any]
    kwargs: dict[str, Any]


def made(task: Task, id: str, alias: str, args: Sequence[Any], kwargs: dict[str, Any], status: TaskResultStatus, **known: Any) -> TaskResult:
    """`known` has what is known of the times, errors and workers."""
    times = dict.fromkeys(("enqueued_at", "started_at", "finished_at", "last_attempted_at"))
    return TaskResult(
        task=task, id=id, status=status, args=list(args), kwargs=kwargs, backend=alias,
        **{**times, "errors": [], "worker_ids": [], **known},
    )  # fmt: skip


def kept(result: TaskResult, namespace: str, value: Any) -> Kept:
    """`result` is of a task that has returned `value`."""
    task = result.task
    return Kept(
        task.module_path, namespace, task.queue_name, task.priority, result.args, result.kwargs, value,
        result.worker_ids, result.enqueued_at, result.started_at, timezone.now(),
    )  # fmt: skip


def of_kept(left: Kept, task: Task, id: int, alias: str) -> TaskResult:
    done = made(
        as_queued(task, alias, left.queue, left.priority), str(id), alias, left.args, left.kwargs, TaskResultStatus.SUCCESSFUL,
        enqueued_at=left.enqueued_at, started_at=left.started_at, finished_at=left.finished_at, last_attempted_at=left.started_at,
        worker_ids=left.worker_ids,
    )  # fmt: skip
    object.__setattr__(done, "_return_value", left.value)  # as Django's own backends do it
    return done


def of_status(status: wire.Status, call: Call, task: Task, alias: str, died_at: datetime | None) -> TaskResult:
    """Returns the result of a message that waits, runs, or has been a dead letter since `died_at`."""
    fresh = status.state == "delayed" and not status.attempts  # else it waits for its next attempt
    queued = as_queued(task, alias, status.topic, -status.priority, local(status.deliver_after) if fresh else None)
    return made(
        queued, str(status.id), alias, call.args, call.kwargs, STATES.get(status.state, TaskResultStatus.READY),
        enqueued_at=local(status.created_at),
        finished_at=None if died_at is None else local(died_at),
        errors=[] if status.error is None else [error_of(status.error)],
        worker_ids=[UNKNOWN] * (status.attempts + (status.state == "leased")),
    )  # fmt: skip


def as_queued(task: Task, alias: str, queue: str, priority: int, run_after: datetime | None = None) -> Task:
    """Returns the task with what it was enqueued with. (Another producer's priority may be beyond Django's.)"""
    return replace(
        task, backend=alias, queue_name=queue, priority=max(TASK_MIN_PRIORITY, min(TASK_MAX_PRIORITY, priority)), run_after=run_after
    )


def error_of(text: str) -> TaskError:
    """Makes Django's error of a message's: class and text, an empty line, the traceback. What was no exception (a lease
    that ended) is JobFailed.
    """
    found = _CLASS.match(text)
    path = _class_path(found[1]) if found is not None else None
    if path is None:
        return TaskError(exception_class_path=f"{JobFailed.__module__}.{JobFailed.__qualname__}", traceback=text)
    return TaskError(exception_class_path=path, traceback=_TRACE.split(text, 1)[-1])


def _class_path(name: str) -> str | None:
    """Returns the path of an exception's class. A traceback names the built-in ones without their module."""
    if "." in name:
        return name
    known = getattr(builtins, name, None)
    return f"builtins.{name}" if isclass(known) and issubclass(known, BaseException) else None


def local(at: datetime) -> datetime:
    """Returns the time as Django has it: without a zone where USE_TZ is off."""
    return at if settings.USE_TZ else timezone.make_naive(at)
