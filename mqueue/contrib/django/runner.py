"""This runs Django's tasks. A message names one; only those that the worker's modules define are run, and no message
makes anything be imported.
"""

import os
import socket
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from traceback import format_exception
from typing import Any

import msgspec
from django.tasks.base import Task as DjangoTask
from django.tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json

from mqueue import Bury, MQueue, Snooze, Task, current
from mqueue.contrib.django import connections, known, results
from mqueue.contrib.django.options import Options
from mqueue.contrib.django.results import Kept
from mqueue.worker.arguments import codec
from mqueue.worker.arguments.codec import BadResult

Runner = Task[[str, list[Any], dict[str, Any]], Kept]


class UnknownTask(LookupError):
    """This worker's modules do not define it; a newer worker may, so it is tried again."""


class Runners:
    """Each queue has two tasks of `app`: one for a `def`, in a thread, and one for an `async def`, on the loop.
    `sender` is that of Django's signals.
    """

    def __init__(self, app: MQueue, alias: str, queues: Sequence[str], sender: type, options: Options) -> None:
        self._alias = alias
        self._sender = sender
        self._keeps = options.result_ttl is not None
        self._runners: dict[tuple[str, bool], Runner] = {}
        for queue in queues:
            kinds: dict[bool, Callable[..., Any]] = {False: self._run, True: self._run_async}
            for is_async, run in kinds.items():
                self._runners[queue, is_async] = app.task(
                    topic=queue,
                    name=f"django.{alias}.{queue}{'.async' if is_async else ''}",
                    max_retries=options.max_retries,
                    lease=options.lease,
                    result=self._keeps,
                    result_ttl=options.result_ttl,
                )(run)

    def of(self, task: DjangoTask) -> Runner:
        return self._runners[task.queue_name, iscoroutinefunction(task.func)]

    def call_of(self, payload: bytes) -> results.Call | None:
        """Returns what one of these tasks was asked for; None for a message of anybody else."""
        try:
            call = codec.decode(payload)
            if call.task in {runner.name for runner in self._runners.values()}:
                return msgspec.convert(call.args, results.Call)
        except (codec.Misfit, msgspec.ValidationError):
            pass
        return None

    def _run(self, path: str, args: list[Any], kwargs: dict[str, Any]) -> Kept:
        with connections.renewed():
            result = self._begin(path, args, kwargs)
            task_started.send(self._sender, task_result=result)
            try:
                kept = self._succeeded(result, result.task.call(*_arguments(result), **kwargs))
            except Exception as error:
                if _failed(result, error):
                    task_finished.send(self._sender, task_result=result)
                raise
            task_finished.send(self._sender, task_result=result)
            return kept

    async def _run_async(self, path: str, args: list[Any], kwargs: dict[str, Any]) -> Kept:
        async with connections.own():
            result = self._begin(path, args, kwargs)
            await task_started.asend(self._sender, task_result=result)
            try:
                kept = self._succeeded(result, await result.task.acall(*_arguments(result), **kwargs))
            except Exception as error:
                if _failed(result, error):
                    await task_finished.asend(self._sender, task_result=result)
                raise
            await task_finished.asend(self._sender, task_result=result)
            return kept

    def _begin(self, path: str, args: list[Any], kwargs: dict[str, Any]) -> TaskResult:
        task = known.find(path)
        if task is None:
            raise UnknownTask(f"no module that this worker has imported defines {path}: is it a tasks.py of an installed app?")
        job, now = current(), timezone.now()
        return results.made(
            results.as_queued(task, self._alias, job.topic, -job.priority), str(job.id), self._alias, args, kwargs, TaskResultStatus.RUNNING,
            enqueued_at=results.local(job.created_at), started_at=now, last_attempted_at=now,
            worker_ids=[f"{socket.gethostname()}-{os.getpid()}"] * job.attempt,  # their number is what Django calls attempts
        )  # fmt: skip

    def _succeeded(self, result: TaskResult, value: Any) -> Kept:
        """Returns what is kept. Raises BadResult for a value that cannot be."""
        kept = results.kept(result, current().namespace, value)
        if self._keeps:
            try:
                kept.value = normalize_json(value)
                self.of(result.task).shape.pack_result(kept)
            except (TypeError, ValueError, RecursionError, BadResult) as error:
                raise BadResult(f"{result.task.module_path}: {error}") from error
        _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=kept.finished_at, _return_value=kept.value)
        return kept


def _arguments(result: TaskResult) -> list[Any]:
    return [TaskContext(task_result=result), *result.args] if result.task.takes_context else result.args


def _failed(result: TaskResult, error: Exception) -> bool:
    """Was it the last attempt? A Snooze is none, and no failure."""
    if isinstance(error, Snooze):
        return False
    kind = type(error)
    result.errors.append(TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback="".join(format_exception(error))))
    job = current()
    if not isinstance(error, Bury | BadResult) and job.attempt <= job.max_retries:
        return False
    _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
    return True


def _set(result: TaskResult, **values: Any) -> None:
    """Sets fields of a result as Django's own backends do it, since results are frozen."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
