"""An app holds tasks and knows the broker that they are queued at. `mqueue.task` belongs to the default app."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar, Unpack, overload
from weakref import WeakSet

from mqueue import message as m
from mqueue import wire
from mqueue.worker.tasks import checks, periodic
from mqueue.worker.tasks.checks import Seconds
from mqueue.worker.tasks.handle import Handle, handle_of
from mqueue.worker.tasks.middleware import LogContext, Middleware, around, enqueue_hooks, run_hooks
from mqueue.worker.tasks.names import default_name
from mqueue.worker.tasks.options import TASK, BatchOptions, PlainOptions, check_task, read_only
from mqueue.worker.tasks.producer import ClientOptions, Producer
from mqueue.worker.tasks.redefinition import code_of, replaces
from mqueue.worker.tasks.reference import documented
from mqueue.worker.tasks.task import BatchTask, Task

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")


class DuplicateTask(ValueError):
    """This is raised where two functions want the same task name."""


class MQueue:
    """An app makes tasks of functions: `app = MQueue()`, then `@app.task`.

    `url` and `token` say where its broker is; without them it is found as `mqueue.client.endpoint` says. `namespace` is
    that of the tasks that name none. `middleware` surrounds enqueues and handlers, the first of it outermost.
    `timeout`, `retries`, `connections` and `batch` are for the clients that enqueue, and ask for its handles
    (`ClientOptions`).
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        namespace: str = m.DEFAULT_NAMESPACE,
        middleware: Sequence[Middleware] = (LogContext(),),
        **client: Unpack[ClientOptions],
    ) -> None:
        self.producer = Producer(url, token, **client)
        self.run_hooks = run_hooks(middleware)
        self._enqueue_hooks = enqueue_hooks(middleware)
        self._namespace = namespace
        self._tasks: dict[str, Task[..., Any]] = {}
        _apps.add(self)

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(self, /, **given: Unpack[PlainOptions[Seconds]]) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    @overload
    def task(self, /, *, batch: int, **given: Unpack[BatchOptions[Seconds]]) -> Callable[[Callable[[list[X]], R]], BatchTask[X, R]]: ...

    @documented(TASK)
    def task(self, function: Callable[..., Any] | None = None, /, **given: Any) -> Any:
        """Mark a `def` (run in a thread) or `async def` (run on the loop) as a task.

        Its options are checked here. What lasts is given in seconds, or as a timedelta.

        {options}

        A handler that goes on after `max_run_time` is run elsewhere once its lease has ended. With `unique` the call
        that waits keeps its time and its priority; a call that runs does not count; a periodic task's tick is never
        left out.

        Raises DuplicateTask; ValueError, TypeError for an option that cannot be; TypeError for `args` and `kwargs` that
        do not fit, a batch's handler that takes no list.
        """
        told = check_task(given, self._namespace)

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            checks.function(function)
            named = read_only({**told, "name": told["name"] or default_name(function)})
            made: Task[..., Any] = (Task if told["batch"] is None else BatchTask)(function, self, named)
            made.periodic = periodic.plan(made)
            self._add(made)
            return made

        return register if function is None else register(function)

    def enqueue_many(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]:
        """Queue many calls, of any of its tasks: `app.enqueue_many(send.message(to) for to in readers)`. This returns
        handles on them, in order.

        They are sent 1,000 at a time: when a later request is refused, the earlier ones stand.
        """
        items = list(messages)
        with around(self._enqueue_hooks, items):
            ids = self.producer.enqueue_many(items)
        return self._handles(ids, items)

    async def enqueue_many_async(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]:
        """This is `enqueue_many` on an event loop."""
        items = list(messages)
        with around(self._enqueue_hooks, items):
            ids = await self.producer.enqueue_many_async(items)
        return self._handles(ids, items)

    def _handles(self, ids: Sequence[int], items: Sequence[wire.EnqueueItem]) -> list[Handle[Any]]:
        return [handle_of(self.producer, id, item, self._tasks) for id, item in zip(ids, items, strict=True)]

    def get(self, name: str) -> Task[..., Any] | None:
        return self._tasks.get(name)

    def topics(self, namespace: str | None = None) -> list[m.TopicName]:
        """These are the topics of the tasks, sorted. `namespace` is used in place of the tasks' own."""
        return sorted({m.TopicName(namespace or t.namespace, t.topic) for t in self})

    def include(self, other: "MQueue") -> None:
        """Run the tasks of `other` too; they are still queued where `other` says. Raises DuplicateTask."""
        for task in other:
            self._add(task)

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    def _add(self, task: Task[..., Any]) -> None:
        other = self._tasks.get(task.name)
        if other is not None and not replaces(task, other):
            raise DuplicateTask(f"task name {task.name!r} is taken by {_whose(other)}: give that of {_whose(task)} another: name=…")
        self._tasks[task.name] = task


def apps() -> list[MQueue]:
    """These are all apps that this process has."""
    return list(_apps)


def _whose(task: Task[..., Any]) -> str:
    code = code_of(task.function)
    place = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(task.function)
    return f"{place} (topic {task.namespace}/{task.topic})"


_apps: WeakSet[MQueue] = WeakSet()
default = MQueue()
task = default.task
enqueue_many = default.enqueue_many
enqueue_many_async = default.enqueue_many_async
