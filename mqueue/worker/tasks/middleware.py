"""Middleware surrounds an app's enqueues and its handlers: `MQueue(middleware=[LogContext(), Timing()])`.

The first of the list is the outermost: it enters first and leaves last, on both sides.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from contextvars import ContextVar, copy_context
from functools import cache
from types import TracebackType
from typing import Any, Generic, TypeVar

from mqueue import wire
from mqueue.worker.tasks.job import Current

T = TypeVar("T")
Hook = Callable[[T], AbstractContextManager[object]]


class Middleware:
    """Override one method or both. Each returns a context manager, which is entered where the work is done: on the loop
    it must not block.

    What it raises is raised in place of what it surrounds: around a handler, that is the handler's failure.
    """

    def enqueue(self, messages: Sequence[wire.EnqueueItem]) -> AbstractContextManager[object]:
        """This surrounds `enqueue` and `enqueue_many`: `messages` are about to be sent, and may still be changed.

        A message's `metadata` may be shared with others: replace it, do not change it.
        """
        return nullcontext()

    def run(self, job: Current) -> AbstractContextManager[object]:
        """This surrounds the handler, where it runs: on the loop, in its thread, in its process. It sees what the
        handler raises.
        """
        return nullcontext()


class LogContext(Middleware):
    """With it, what a handler logs by structlog (with `merge_contextvars` among its processors) has `task`,
    `message_id` and `attempt`.
    """

    def run(self, job: Current) -> AbstractContextManager[object]:
        return _Bound(job)


@cache
def _variables() -> tuple[ContextVar[Any], ...]:
    """These are the variables that structlog binds the names to. Setting them here is five times as fast as asking
    structlog to do it for every job.

    The first job imports structlog: a program that only enqueues does without.
    """
    from structlog.contextvars import bind_contextvars

    tokens = copy_context().run(lambda: bind_contextvars(task=None, message_id=None, attempt=None))
    return tuple(tokens[name].var for name in ("task", "message_id", "attempt"))


class _Bound:
    __slots__ = ("_job", "_tokens")

    def __init__(self, job: Current) -> None:
        self._job = job

    def __enter__(self) -> None:
        job, (task, message_id, attempt) = self._job, _variables()
        self._tokens = task.set(job.task), message_id.set(job.id), attempt.set(job.attempt)

    def __exit__(self, *_: object) -> None:
        for token in self._tokens:
            token.var.reset(token)


def enqueue_hooks(middleware: Sequence[Middleware]) -> list[Hook[Sequence[wire.EnqueueItem]]]:
    """These are the hooks of the middleware that has its own: any other costs nothing."""
    return [each.enqueue for each in middleware if type(each).enqueue is not Middleware.enqueue]


def run_hooks(middleware: Sequence[Middleware]) -> list[Hook[Current]]:
    return [each.run for each in middleware if type(each).run is not Middleware.run]


def around(hooks: Sequence[Hook[T]], subject: T) -> AbstractContextManager[object]:
    if len(hooks) == 1:
        return hooks[0](subject)
    return _Nested(hooks, subject) if hooks else _NOTHING


_NOTHING = nullcontext()


class _Nested(Generic[T]):
    def __init__(self, hooks: Sequence[Hook[T]], subject: T) -> None:
        self._hooks = hooks
        self._subject = subject

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for hook in self._hooks:
                stack.enter_context(hook(self._subject))
            self._stack = stack.pop_all()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return self._stack.__exit__(kind, error, trace)
