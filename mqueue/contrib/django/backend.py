"""The backend turns what Django says into our words. Its `OPTIONS` are in options.py."""

import re
import threading
from typing import Any, NamedTuple

import msgspec
from django.core.checks import Error
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task, TaskResult, TaskResultStatus
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.module_loading import autodiscover_modules, import_string

from mqueue import MQueue, wire
from mqueue import message as m
from mqueue.contrib.django import known, outbox, results
from mqueue.contrib.django import options as o
from mqueue.contrib.django.outbox import Due
from mqueue.contrib.django.runner import Runners
from mqueue.errors import JobFailed, MQueueError, NotFound, Pending, Unavailable

LOOKS_MAX = 5
LOST_MAX = 10  # names in an error's note

_ID = re.compile("[1-9][0-9]{0,18}")
_lock = threading.Lock()


class Made(NamedTuple):
    """All threads share it, since Django makes a backend for each. `params`: what it was made of."""

    params: dict[str, Any]
    options: o.Options
    app: MQueue
    runners: Runners


_made: dict[str, Made] = {}  # by alias


class MQueueBackend(BaseTaskBackend):
    """`queue_name` is the topic. In Django a larger priority is more urgent, here a smaller one: −priority.

    A result's id is that of its message; inside a transaction it is made up until the commit.
    """

    supports_defer = True
    supports_async_task = True
    supports_priority = True
    supports_get_result = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        _, options, self.app, self._runners = _shared(alias, params, sorted(self.queues), self.options, type(self))
        self.supports_get_result = options.result_ttl is not None
        self._namespace = options.namespace
        self._on_commit = options.enqueue_on_commit
        self._database = options.database

    def validate_task(self, task: Task) -> None:
        super().validate_task(task)
        known.know(task)

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """Raises InvalidTask for a call that cannot be sent, before any transaction ends.

        If the tasks of a transaction cannot be sent for another reason (the broker is away, for example), `atomic()`
        raises, after it has committed.
        """
        self.validate_task(task)
        result = results.made(task, f"uncommitted-{get_random_string(32)}", self.alias, args, kwargs, TaskResultStatus.READY)
        try:
            due = Due(self._message(result), result)
        except (TypeError, ValueError) as error:
            raise InvalidTask(str(error)) from error
        connection = connections[self._database] if self._on_commit else None
        if connection is not None and connection.in_atomic_block:
            outbox.of(connection, self.alias, self._send_committed).add(connection, due)
        else:
            self._send([due])
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Returns the result as far as mqueue knows it: see `results.py`. Raises TaskResultDoesNotExist,
        mqueue.errors.Unavailable.

        A task with neither message nor result does not exist: it was cancelled, or it has expired, or its result has.
        """
        if not self.supports_get_result:
            return super().get_result(result_id)
        id, client = _message_id(result_id), self.app.producer.client()
        for _ in range(LOOKS_MAX):
            status = client.message(id)
            if status is not None and status.state != "done":
                return self._of_status(status)
            try:
                return self._of_kept(id, client.result(id))
            except NotFound as error:
                raise TaskResultDoesNotExist(result_id) from error
            except (Pending, JobFailed):  # its state has changed since the look before
                continue
        raise Unavailable(f"message {id} has neither state nor result that stays: ask again", retry_after=1)

    def _of_status(self, status: wire.Status) -> TaskResult:
        call = self._runners.call_of(status.payload)
        if call is None or status.namespace != self._there or status.topic not in self.queues:
            raise TaskResultDoesNotExist(str(status.id))
        died_at = None
        if status.state == "dead":
            page = self.app.producer.client().dead_letters(status.topic, namespace=status.namespace, limit=1, after=status.id - 1)
            died_at = next((dead.died_at for dead in page if dead.id == status.id), None)
        return results.of_status(status, call, self._task(call.path), self.alias, died_at)

    def _of_kept(self, id: int, packed: bytes) -> TaskResult:
        try:
            left = msgspec.json.decode(packed, type=results.Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # of a task that is not Django's
            raise TaskResultDoesNotExist(str(id)) from error
        if left.namespace != self._there or left.queue not in self.queues:
            raise TaskResultDoesNotExist(str(id))
        return results.of_kept(left, self._task(left.task), id, self.alias)

    @property
    def _there(self) -> str:
        """Its messages are in this namespace: under `mqueue_broker` in that of the test, which its client knows."""
        there: str = getattr(self.app.producer.client(), "namespace", self._namespace)
        return there

    def _task(self, path: str) -> Task:
        """Returns the task of that path. A message makes nothing be imported but what the worker imports, too."""
        if known.find(path) is None:
            autodiscover_modules("tasks")
        if (task := known.find(path)) is None:
            raise TaskResultDoesNotExist(f"it is of {path}, which no module imported here defines: is it a tasks.py of an installed app?")
        return task

    def check(self, **kwargs: Any) -> list[Error]:
        if self._on_commit and self._database not in connections:
            hint = "Set ENQUEUE_ON_COMMIT to False, or DATABASE to a name in DATABASES."
            return [Error(f"TASKS[{self.alias!r}]: there is no database {self._database!r}.", hint, id="mqueue.E001")]
        return []

    def _message(self, result: TaskResult) -> wire.EnqueueItem:
        task, at = result.task, result.task.run_after
        if at is not None and timezone.is_naive(at):
            at = timezone.make_aware(at)
        if at is not None and not 0 <= at.timestamp() * 1e6 <= m.TIME_MAX_US:
            raise ValueError(f"run_after is {at}: between the years 1970 and 2220 is allowed")
        runner = self._runners.of(task).options(priority=-task.priority, at=at)
        return runner.message(task.module_path, result.args, result.kwargs)

    def _send(self, due: list[Due]) -> None:
        """Sends what is due. If a request fails, the signals for what the requests before it have sent
        are sent all the same.
        """
        from mqueue.client import protocol  # it brings both clients, which nobody needs who enqueues nothing

        sent: list[TaskResult] = []
        try:
            for items in protocol.batches(each.message for each in due):
                for handle in self.app.enqueue_many(items):
                    result = due[len(sent)].result
                    object.__setattr__(result, "id", str(handle.id))
                    object.__setattr__(result, "enqueued_at", timezone.now())
                    sent.append(result)
        finally:
            for result in sent:
                task_enqueued.send(type(self), task_result=result)

    def _send_committed(self, due: list[Due]) -> None:
        try:
            self._send(due)
        except MQueueError as error:
            lost = [each.result.task.module_path for each in due if each.result.enqueued_at is None]
            names = ", ".join(lost[:LOST_MAX]) + (" …" if len(lost) > LOST_MAX else "")
            error.add_note(f"The transaction has committed. Not known to be enqueued: {names}")
            raise


def _message_id(result_id: str) -> int:
    if not _ID.fullmatch(str(result_id)):
        raise TaskResultDoesNotExist(result_id)
    return int(result_id)


def _shared(alias: str, params: dict[str, Any], queues: list[str], options: dict[str, Any], sender: type) -> Made:
    """Returns what all threads share, made anew where the settings have changed (in tests). Raises
    ImproperlyConfigured.
    """
    with _lock:
        made = _made.get(alias)
        if made is None or made.params != params:
            made = _made[alias] = _make(alias, params, queues, options, sender)
        return made


def _make(alias: str, params: dict[str, Any], queues: list[str], given: dict[str, Any], sender: type) -> Made:
    where = f"TASKS[{alias!r}]"
    options = o.read(where, given)
    if not queues:
        raise ImproperlyConfigured(f"{where}: QUEUES is empty; name them: a worker fetches from these")
    middleware = [import_string(path)() for path in options.middleware]
    app = MQueue(options.url, options.token, namespace=options.namespace, middleware=middleware, **options.client())
    try:
        return Made(params, options, app, Runners(app, alias, queues, sender, options))
    except ValueError as error:
        raise ImproperlyConfigured(f"{where}: {error}") from error
