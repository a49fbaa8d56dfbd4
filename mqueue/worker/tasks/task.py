"""A task is a function that workers run, under a name that travels with its messages."""

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import update_wrapper
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

import msgspec

from mqueue import message as m
from mqueue import wire
from mqueue.worker import memory
from mqueue.worker.arguments import codec
from mqueue.worker.tasks.checks import Seconds
from mqueue.worker.tasks.handle import Handle
from mqueue.worker.tasks.names import default_name
from mqueue.worker.tasks.options import CALL, TASK, CallOptions, TaskOptions, check_call, fields
from mqueue.worker.tasks.producer import Producer
from mqueue.worker.tasks.reference import documented

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
X = TypeVar("X")
T = TypeVar("T")
Executor = Literal["loop", "thread", "process"]


class App(Protocol):
    """A task asks this of the app that it belongs to (`app.MQueue`)."""

    @property
    def producer(self) -> Producer: ...

    @property
    def run_hooks(self) -> Sequence[Callable[[Any], AbstractContextManager[object]]]: ...

    def get(self, name: str) -> "Task[..., Any] | None": ...

    def enqueue_many(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]: ...

    async def enqueue_many_async(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]: ...


class Task(Generic[P, R_co]):
    """A task makes a function one that workers run. Calling the task calls the function, here and now; `enqueue` queues
    the call and returns a handle on it.

    `told` has all its options, checked; `defaults` is its message without a call, which `options` may change. Arguments
    that do not fit the signature and its types, or have no JSON form, raise TypeError at once, and nothing is sent.
    """

    def __init__(self, function: Callable[P, R_co], app: App, told: TaskOptions[float]) -> None:
        update_wrapper(self, function)
        self.function = function
        self.app = app
        self.told = told
        self.name: str = told["name"] or default_name(function)
        self.defaults = wire.EnqueueItem(**fields(TASK, told))
        self.is_async = inspect.iscoroutinefunction(function)
        self.executor: Executor = told["executor"] or ("loop" if self.is_async else "thread")
        # What the worker reads at every job. Any other option is `told[...]`.
        self.retry = told["retry"]
        self.time_limit = told["time_limit"]  # seconds, like all that lasts
        self.memory_limit_mb = told["memory_limit_mb"]
        self.max_run_time = told["max_run_time"]
        self.keeps_result = told["result"]
        self.result_ttl = told["result_ttl"] or m.RESULT_TTL_S
        self.batch = told["batch"]
        self.batch_wait = told["batch_wait"] or 0.0
        self.shape = self._shape()
        self.periodic: wire.ScheduleItem | None = None
        self._plain: Configured[P, Any] = Configured(self, self.defaults, told["unique"] is not None)

    def _shape(self) -> codec.Shape:
        return codec.Shape(self.function, returns=self.keeps_result)

    @property
    def topic(self) -> str:
        return self.defaults.topic

    @property
    def namespace(self) -> str:
        return self.defaults.namespace

    def check_process(self) -> None:
        """Can it run in a process of its own? Raises TypeError where that process, having imported its module, would
        not find it there, or could not be watched.
        """
        if self.memory_limit_mb is not None and not memory.MEMORY.exists():
            raise TypeError(f"memory_limit_mb needs {memory.MEMORY}, which this system does not have")
        if _attribute(sys.modules.get(self.function.__module__), self.function.__qualname__) is not self:
            raise TypeError(f"executor='process' needs it in its module under the name {self.function.__qualname__}")

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @overload
    def enqueue(self: "Task[P, Coroutine[Any, Any, T]]", /, *args: P.args, **kwargs: P.kwargs) -> Handle[T]: ...

    @overload
    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]: ...

    def enqueue(self, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Queue this call, and return a handle on its message once the broker has made it durable."""
        return self._plain.enqueue(*args, **kwargs)

    @overload
    async def enqueue_async(self: "Task[P, Coroutine[Any, Any, T]]", /, *args: P.args, **kwargs: P.kwargs) -> Handle[T]: ...

    @overload
    async def enqueue_async(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]: ...

    async def enqueue_async(self, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """This is `enqueue` on an event loop."""
        return await self._plain.enqueue_async(*args, **kwargs)

    @overload
    def handle(self: "Task[P, Coroutine[Any, Any, T]]", id: int) -> Handle[T]: ...

    @overload
    def handle(self, id: int) -> Handle[R_co]: ...

    def handle(self, id: int) -> Handle[Any]:
        """Make a handle on a call that was queued before, by the id of its message. For one in another namespace:
        `task.options(namespace=…).handle(id)`.
        """
        return self._plain.handle(id)

    def message(self, /, *args: P.args, **kwargs: P.kwargs) -> wire.EnqueueItem:
        """Make this call an item for `enqueue_many`."""
        return self._plain.message(*args, **kwargs)

    @overload
    def options(self: "Task[P, Coroutine[Any, Any, T]]", **given: Unpack[CallOptions[Seconds]]) -> "Configured[P, T]": ...

    @overload
    def options(self, **given: Unpack[CallOptions[Seconds]]) -> "Configured[P, R_co]": ...

    @documented(CALL)
    def options(self, **given: Any) -> "Configured[P, Any]":
        """Choose other options, for one call or many: `send.options(delay=60).enqueue(…)`. None stands for what the
        task has. What lasts is given in seconds, or as a timedelta.

        {options}

        Raises ValueError for `delay` beside `at`; ValueError, TypeError for an option that cannot be.
        """
        told = check_call(given)
        unique = (told.get("unique") or self.told["unique"]) is not None
        return Configured(self, msgspec.structs.replace(self.defaults, **fields(CALL, told)), unique)


class BatchTask(Task[[X], R_co], Generic[X, R_co]):
    """The handler of such a task takes a list of items; its `enqueue` takes one item."""

    def _shape(self) -> codec.Shape:
        return codec.ItemShape(self.function)

    def __call__(self, items: list[X], /) -> R_co:  # type: ignore[override]
        return self.function(items)  # type: ignore[arg-type]


def find(module: str, qualname: str) -> Task[..., Any]:
    """Import `module` and return its task of that name. Raises what the import raises, and TypeError where there is no
    such task.
    """
    found = _attribute(import_module(module), qualname)
    if not isinstance(found, Task):
        raise TypeError(f"module {module} has no task {qualname}")
    return found


def _attribute(module: ModuleType | None, qualname: str) -> Any:
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


class Configured(msgspec.Struct, Generic[P, R_co], frozen=True):
    """This is a task with the options of some calls: `template` is their message without the call itself."""

    task: Task[P, Any]
    template: wire.EnqueueItem
    unique: bool = False

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        return self.task.app.enqueue_many([self.message(*args, **kwargs)])[0]

    async def enqueue_async(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        return (await self.task.app.enqueue_many_async([self.message(*args, **kwargs)]))[0]

    def handle(self, id: int) -> Handle[R_co]:
        return Handle(self.task.app.producer, self.task, id, m.TopicName(self.template.namespace, self.template.topic))

    def message(self, /, *args: P.args, **kwargs: P.kwargs) -> wire.EnqueueItem:
        task = self.task
        payload = task.shape.pack(task.name, args, kwargs)
        if len(payload) > m.PAYLOAD_MAX:
            raise ValueError(f"task {task.name}: its arguments take {len(payload):,} bytes, {m.PAYLOAD_MAX:,} are allowed")
        unique_key = task.shape.identity(task.name, args, kwargs) if self.unique else None
        return msgspec.structs.replace(self.template, payload=payload, unique_key=unique_key)
