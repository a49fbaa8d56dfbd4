"""The backend. `OPTIONS`, all optional:

URL, TOKEN          the broker; without them it is found as ever
NAMESPACE           of its messages
MAX_RETRIES, LEASE  (seconds) of its messages; the broker's defaults
ENQUEUE_ON_COMMIT   True: inside a transaction a task is enqueued when it commits, and not if it rolls back
DATABASE            whose transactions those are; "default"
MIDDLEWARE          dotted paths of middleware without arguments; ["mqueue.LogContext"]
"""

import threading
from functools import partial
from typing import Any

from django.core.checks import Error
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task, TaskResult, TaskResultStatus
from django.tasks.exceptions import InvalidTask
from django.tasks.signals import task_enqueued
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.module_loading import import_string

from mqueue import MQueue, wire
from mqueue import message as m
from mqueue.contrib.django.runner import Runners

OPTIONS = {"URL", "TOKEN", "NAMESPACE", "MAX_RETRIES", "LEASE", "ENQUEUE_ON_COMMIT", "DATABASE", "MIDDLEWARE"}

_lock = threading.Lock()
_made: dict[str, tuple[dict[str, Any], MQueue, Runners]] = {}  # by alias: Django makes a backend for each thread


class MQueueBackend(BaseTaskBackend):
    """`queue_name` is the topic. Django's larger priority is more urgent, ours is the lesser: −priority.

    A result's id is that of its message; inside a transaction it is made up until the commit. Results are not kept.
    """

    supports_defer = True
    supports_async_task = True
    supports_priority = True
    supports_get_result = False

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.app, self._runners = _app(alias, params, sorted(self.queues), self.options, type(self))
        self._on_commit = self.options.get("ENQUEUE_ON_COMMIT", True)
        self._database = self.options.get("DATABASE", "default")

    def validate_task(self, task: Task) -> None:
        super().validate_task(task)
        self._runners.know(task)

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """Raises InvalidTask for a call that cannot be sent, before any transaction ends."""
        self.validate_task(task)
        result = _result(task, args, kwargs, self.alias)
        try:
            message = self._message(result)
        except (TypeError, ValueError) as error:
            raise InvalidTask(str(error)) from error
        connection = connections[self._database] if self._on_commit else None
        if connection is not None and connection.in_atomic_block:
            connection.on_commit(partial(self._send, message, result))
        else:
            self._send(message, result)
        return result

    def check(self, **kwargs: Any) -> list[Error]:
        if self._on_commit and self._database not in connections:
            hint = "Set ENQUEUE_ON_COMMIT to False, or DATABASE to a name in DATABASES."
            return [Error(f"TASKS[{self.alias!r}]: there is no database {self._database!r}.", hint, id="mqueue.E001")]
        return []

    def _message(self, result: TaskResult) -> wire.EnqueueItem:
        task, at = result.task, result.task.run_after
        if at is not None and timezone.is_naive(at):
            at = timezone.make_aware(at)
        runner = self._runners.of(task).options(priority=-task.priority, at=at)
        return runner.message(task.module_path, result.args, result.kwargs)

    def _send(self, message: wire.EnqueueItem, result: TaskResult) -> None:
        [handle] = self.app.enqueue_many([message])
        object.__setattr__(result, "id", str(handle.id))
        object.__setattr__(result, "enqueued_at", timezone.now())
        task_enqueued.send(type(self), task_result=result)


def _app(alias: str, params: dict[str, Any], queues: list[str], options: dict[str, Any], sender: type) -> tuple[MQueue, Runners]:
    """The app of an alias, which all threads share; another one where the settings are others (in tests). Raises ImproperlyConfigured."""
    with _lock:
        known = _made.get(alias)
        if known is None or known[0] != params:
            known = _made[alias] = params, *_make(alias, queues, options, sender)
        return known[1], known[2]


def _make(alias: str, queues: list[str], options: dict[str, Any], sender: type) -> tuple[MQueue, Runners]:
    where = f"TASKS[{alias!r}]"
    if wrong := sorted(set(options) - OPTIONS):
        raise ImproperlyConfigured(f"{where}: OPTIONS has {', '.join(wrong)}; there are: {', '.join(sorted(OPTIONS))}")
    if not queues:
        raise ImproperlyConfigured(f"{where}: QUEUES is empty; name them: a worker fetches from these")
    middleware = [import_string(path)() for path in options.get("MIDDLEWARE", ["mqueue.LogContext"])]
    app = MQueue(options.get("URL"), options.get("TOKEN"), namespace=options.get("NAMESPACE", m.DEFAULT_NAMESPACE), middleware=middleware)
    try:
        return app, Runners(app, alias, queues, sender, max_retries=options.get("MAX_RETRIES"), lease=options.get("LEASE"))
    except ValueError as error:
        raise ImproperlyConfigured(f"{where}: {error}") from error


def _result(task: Task, args: Any, kwargs: Any, alias: str) -> TaskResult:
    return TaskResult(
        task=task,
        id=f"uncommitted-{get_random_string(32)}",
        status=TaskResultStatus.READY,
        enqueued_at=None,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=list(args),
        kwargs=kwargs,
        backend=alias,
        errors=[],
        worker_ids=[],
    )
