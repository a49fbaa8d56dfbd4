"""Runs Django's tasks. A message names one; only those that the worker's modules define are run, none is imported on a message's word."""

import os
import socket
from collections.abc import Sequence
from inspect import iscoroutinefunction
from traceback import format_exception
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, reset_queries
from django.tasks.base import Task as DjangoTask
from django.tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
from django.tasks.signals import task_finished, task_started
from django.utils import timezone

from mqueue import Bury, MQueue, Snooze, Task, current

Runner = Task[[str, list[Any], dict[str, Any]], Any]


class UnknownTask(LookupError):
    """This worker's modules do not define it; a newer worker may, so it is tried again."""


class Runners:
    """For each queue two tasks of `app`: for a `def`, in a thread, and for an `async def`, on the loop. `sender`: of Django's signals."""

    def __init__(self, app: MQueue, alias: str, queues: Sequence[str], sender: type, *, max_retries: int | None, lease: float | None) -> None:
        self._alias = alias
        self._sender = sender
        self._known: dict[str, DjangoTask] = {}
        self._runners: dict[tuple[str, bool], Runner] = {}
        for queue in queues:
            declare = app.task(topic=queue, name=f"django.{alias}.{queue}", max_retries=max_retries, lease=lease)
            self._runners[queue, False] = declare(self._run)
            declare = app.task(topic=queue, name=f"django.{alias}.{queue}.async", max_retries=max_retries, lease=lease)
            self._runners[queue, True] = declare(self._run_async)

    def know(self, task: DjangoTask) -> None:
        self._known[task.module_path] = task

    def of(self, task: DjangoTask) -> Runner:
        return self._runners[task.queue_name, iscoroutinefunction(task.func)]

    def _run(self, path: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        _freshen()
        try:
            result = self._begin(path, args, kwargs)
            task_started.send(self._sender, task_result=result)
            try:
                value = result.task.call(*_arguments(result), **kwargs)
            except Exception as error:
                if _failed(result, error):
                    task_finished.send(self._sender, task_result=result)
                raise
            _succeeded(result, value)
            task_finished.send(self._sender, task_result=result)
            return value
        finally:
            close_old_connections()

    async def _run_async(self, path: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        await sync_to_async(_freshen)()
        try:
            result = self._begin(path, args, kwargs)
            await task_started.asend(self._sender, task_result=result)
            try:
                value = await result.task.acall(*_arguments(result), **kwargs)
            except Exception as error:
                if _failed(result, error):
                    await task_finished.asend(self._sender, task_result=result)
                raise
            _succeeded(result, value)
            await task_finished.asend(self._sender, task_result=result)
            return value
        finally:
            await sync_to_async(close_old_connections)()

    def _begin(self, path: str, args: list[Any], kwargs: dict[str, Any]) -> TaskResult:
        task = self._known.get(path)
        if task is None:
            raise UnknownTask(f"no module that this worker has imported defines {path}: is it a tasks.py of an installed app?")
        job, now = current(), timezone.now()
        return TaskResult(
            task=task,
            id=str(job.id),
            status=TaskResultStatus.RUNNING,
            enqueued_at=None,
            started_at=now,
            finished_at=None,
            last_attempted_at=now,
            args=args,
            kwargs=kwargs,
            backend=self._alias,
            errors=[],
            worker_ids=[f"{socket.gethostname()}-{os.getpid()}"] * job.attempt,  # their number is what Django calls attempts
        )


def _freshen() -> None:
    """As before a request."""
    reset_queries()
    close_old_connections()


def _arguments(result: TaskResult) -> list[Any]:
    return [TaskContext(task_result=result), *result.args] if result.task.takes_context else result.args


def _succeeded(result: TaskResult, value: Any) -> None:
    _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)


def _failed(result: TaskResult, error: Exception) -> bool:
    """Was it the last attempt? A Snooze is none, and no failure."""
    if isinstance(error, Snooze):
        return False
    kind = type(error)
    result.errors.append(TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback="".join(format_exception(error))))
    job = current()
    if not isinstance(error, Bury) and job.attempt <= job.max_retries:
        return False
    _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
    return True


def _set(result: TaskResult, **values: Any) -> None:
    """As Django's own backends do it: results are frozen."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
