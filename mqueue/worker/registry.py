"""`@task` marks a function as one that workers run, under a name that travels with its messages."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, overload

from mqueue import message as m
from mqueue import wire
from mqueue.worker import codec
from mqueue.worker.producer import Producer

if TYPE_CHECKING:
    from mqueue.client.protocol import EnqueueOptions

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(m.NAME_PATTERN)


class DuplicateTask(ValueError):
    """Two functions want the same task name."""


class Task(Generic[P, R]):
    """A function that workers run. Calling it calls the function, here and now; `enqueue` queues the call and returns its id.

    Arguments that do not fit the signature, or have no JSON form, raise TypeError at once.
    """

    def __init__(
        self,
        function: Callable[P, R],
        producer: Producer,
        *,
        name: str,
        topic: str,
        namespace: str | None,
        priority: int,
        max_retries: int | None,
        lease: float | None,
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = name
        self.topic = topic
        self.namespace = namespace
        self.priority = priority
        self.max_retries = max_retries
        self.lease = lease
        self.is_async = inspect.iscoroutinefunction(function)
        self.shape = codec.Shape(function)
        self._producer = producer
        self._plain: Configured[P] = Configured(self, {})

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Queue this call; the id of its message. Returns once the broker has made it durable."""
        return self._plain.enqueue(*args, **kwargs)

    async def enqueue_async(self, *args: P.args, **kwargs: P.kwargs) -> int:
        return await self._plain.enqueue_async(*args, **kwargs)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> wire.EnqueueItem:
        """This call as an item for `Client.enqueue_many`."""
        return self._plain.message(*args, **kwargs)

    def options(self, **options: Unpack["EnqueueOptions"]) -> "Configured[P]":
        """The same task with other options, for one call or many: `send.options(delay=60).enqueue(…)`."""
        return Configured(self, options)


@dataclass(frozen=True, slots=True)
class Configured(Generic[P]):
    """A task and the options its calls are queued with."""

    task: Task[P, Any]
    chosen: "EnqueueOptions"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> int:
        return self.task._producer.enqueue(self.message(*args, **kwargs))

    async def enqueue_async(self, *args: P.args, **kwargs: P.kwargs) -> int:
        return await self.task._producer.enqueue_async(self.message(*args, **kwargs))

    def message(self, *args: P.args, **kwargs: P.kwargs) -> wire.EnqueueItem:
        task = self.task
        task.shape.check(args, kwargs)
        item = wire.EnqueueItem(
            topic=task.topic,
            namespace=task.namespace or m.DEFAULT_NAMESPACE,
            priority=task.priority,
            payload=codec.encode(task.name, args, kwargs),
            max_retries=task.max_retries,
            lease=task.lease,
        )
        for option, value in self.chosen.items():
            setattr(item, option, value)
        return item


class Registry:
    """The tasks of a program. `mqueue.task` belongs to the one that `mqueue worker` runs; make another for tests or plugins."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.producer = Producer(url, token)
        self._tasks: dict[str, Task[..., Any]] = {}

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        /,
        *,
        topic: str = ...,
        priority: int = ...,
        max_retries: int | None = ...,
        lease: float | None = ...,
        name: str | None = ...,
        namespace: str | None = ...,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        topic: str = "default",
        priority: int = 0,
        max_retries: int | None = None,
        lease: float | None = None,
        name: str | None = None,
        namespace: str | None = None,
    ) -> Any:
        """Mark a `def` (run in a thread) or `async def` (run on the loop) as a task.

        `priority`: lower runs first. `max_retries`, `lease` (seconds): None for the broker's defaults. `name` travels with the
        messages, by default module and name of the function: give one if the function may move. Raises DuplicateTask.
        """
        for given in (topic, namespace or topic):
            if not _NAME.fullmatch(given):
                raise ValueError(f"{given!r} is no topic or namespace: 1 to {m.NAME_MAX} of letters, digits, _ . -")

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            made = Task(
                function,
                self.producer,
                name=name or default_name(function),
                topic=topic,
                namespace=namespace,
                priority=priority,
                max_retries=max_retries,
                lease=lease,
            )
            self._add(made)
            return made

        return register if function is None else register(function)

    def get(self, name: str) -> Task[..., Any] | None:
        return self._tasks.get(name)

    def topics(self, namespace: str | None = None) -> list[m.TopicName]:
        """Where the tasks' messages are, sorted. `namespace` is used in place of the tasks' own."""
        return sorted({m.TopicName(namespace or t.namespace or m.DEFAULT_NAMESPACE, t.topic) for t in self})

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    def _add(self, task: Task[..., Any]) -> None:
        other = self._tasks.get(task.name)
        if other is not None and place(other.function) != place(task.function):  # the same place: its module was reloaded
            raise DuplicateTask(f"task name {task.name!r} is taken by {place(other.function)}: give {place(task.function)} another (name=…)")
        self._tasks[task.name] = task


def place(function: Callable[..., Any]) -> str:
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def default_name(function: Callable[..., Any]) -> str:
    """`module.qualname`. A program's main module goes by the name that others import it by."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    return f"{module}.{function.__qualname__}"


default = Registry()
task = default.task
