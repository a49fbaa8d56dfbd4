"""A task: a function that workers run, under a name that travels with its messages."""

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import update_wrapper
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

import msgspec

from mqueue import message as m
from mqueue import wire
from mqueue.worker import memory
from mqueue.worker.arguments import codec
from mqueue.worker.tasks import options
from mqueue.worker.tasks.handle import Handle
from mqueue.worker.tasks.producer import Producer
from mqueue.worker.tasks.retry import Retry

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
X = TypeVar("X")
T = TypeVar("T")
Executor = Literal["loop", "thread", "process"]
Unique = Literal["waiting"]


class App(Protocol):
    """What a task asks of the app that it belongs to (`app.MQueue`)."""

    @property
    def producer(self) -> Producer: ...

    @property
    def run_hooks(self) -> Sequence[Callable[[Any], AbstractContextManager[object]]]: ...

    def get(self, name: str) -> "Task[..., Any] | None": ...

    def enqueue_many(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]: ...

    async def enqueue_many_async(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]: ...


class Task(Generic[P, R_co]):
    """A function that workers run. Calling it calls the function, here and now; `enqueue` queues the call and returns a
    handle on it.

    `defaults`: the options of its messages, which `options` may change. Arguments that do not fit the signature and its
    types, or have no JSON form, raise TypeError at once, and nothing is sent.
    """

    batch: int | None = None  # messages that its handler takes at once, at most
    batch_wait: float = 0.0  # seconds that they are gathered for

    def __init__(
        self,
        function: Callable[P, R_co],
        app: App,
        *,
        name: str,
        defaults: wire.EnqueueItem,
        retry: Retry | None,
        in_process: bool,
        time_limit: float | None,
        memory_limit_mb: float | None,
        max_run_time: float | None = None,
        keeps_result: bool,
        result_ttl: float,
        unique: Unique | None = None,
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.app = app
        self.name = name
        self.defaults = defaults
        self.retry = retry
        self.is_async = inspect.iscoroutinefunction(function)
        self.executor: Executor = "process" if in_process else "loop" if self.is_async else "thread"
        self.time_limit = time_limit
        self.memory_limit_mb = memory_limit_mb
        self.max_run_time = max_run_time  # seconds
        self.keeps_result = keeps_result
        self.result_ttl = result_ttl  # seconds
        self.shape = codec.Shape(function, returns=keeps_result)
        self.periodic: wire.ScheduleItem | None = None
        self.unique = unique
        self._plain: Configured[P, Any] = Configured(self, {}, unique)

    @property
    def topic(self) -> str:
        return self.defaults.topic

    @property
    def namespace(self) -> str:
        return self.defaults.namespace

    def check_process(self) -> None:
        """Raises TypeError where another process, having imported its module, would not find it there, or could not be
        watched.
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
        """Queue this call; a handle on its message. Returns once the broker has made it durable."""
        return self._plain.enqueue(*args, **kwargs)

    @overload
    async def enqueue_async(self: "Task[P, Coroutine[Any, Any, T]]", /, *args: P.args, **kwargs: P.kwargs) -> Handle[T]: ...

    @overload
    async def enqueue_async(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]: ...

    async def enqueue_async(self, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """`enqueue`, on an event loop."""
        return await self._plain.enqueue_async(*args, **kwargs)

    @overload
    def handle(self: "Task[P, Coroutine[Any, Any, T]]", id: int) -> Handle[T]: ...

    @overload
    def handle(self, id: int) -> Handle[R_co]: ...

    def handle(self, id: int) -> Handle[Any]:
        """On a call that was queued before, by the id of its message; in another namespace:
        `task.options(namespace=…).handle(id)`.
        """
        return self._plain.handle(id)

    def message(self, /, *args: P.args, **kwargs: P.kwargs) -> wire.EnqueueItem:
        """This call as an item for `enqueue_many`."""
        return self._plain.message(*args, **kwargs)

    @overload
    def options(
        self: "Task[P, Coroutine[Any, Any, T]]",
        *,
        priority: int | None = ...,
        delay: float | timedelta | None = ...,
        at: datetime | None = ...,
        ttl: float | timedelta | None = ...,
        idempotency_key: str | None = ...,
        max_retries: int | None = ...,
        lease: float | timedelta | None = ...,
        metadata: dict[str, Any] | None = ...,
        namespace: str | None = ...,
        unique: Unique | None = ...,
    ) -> "Configured[P, T]": ...

    @overload
    def options(
        self,
        *,
        priority: int | None = ...,
        delay: float | timedelta | None = ...,
        at: datetime | None = ...,
        ttl: float | timedelta | None = ...,
        idempotency_key: str | None = ...,
        max_retries: int | None = ...,
        lease: float | timedelta | None = ...,
        metadata: dict[str, Any] | None = ...,
        namespace: str | None = ...,
        unique: Unique | None = ...,
    ) -> "Configured[P, R_co]": ...

    def options(
        self,
        *,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        ttl: float | timedelta | None = None,
        idempotency_key: str | None = None,
        max_retries: int | None = None,
        lease: float | timedelta | None = None,
        metadata: dict[str, Any] | None = None,
        namespace: str | None = None,
        unique: Unique | None = None,
    ) -> "Configured[P, Any]":
        """The same task with other options, for one call or many: `send.options(delay=60).enqueue(…)`. None: as the
        task has it.

        `priority`: lower runs first. `delay` in seconds, or `at`, a time with its zone: not before. `ttl`: seconds
        until it expires unless it began. `idempotency_key`: the same key again is the same message. `lease`: seconds.
        `metadata`: a JSON object that travels along. `unique="waiting"`: while such a call with the same arguments
        waits, the handle is on that one, as it stands. Raises ValueError for `delay` beside `at`, for a time without a
        zone, and for another `unique`.
        """
        if at is not None and delay is not None:
            raise ValueError("delay= and at= say the same in two ways: give one")
        if at is not None and not isinstance(at, datetime):
            raise TypeError(f"at={at!r}: a datetime with a time zone")
        if at is not None and at.tzinfo is None:
            raise ValueError(f"at={at!r} has no time zone")
        given = {
            "priority": priority,
            "delay": delay,
            "deliver_after": at,
            "ttl": ttl,
            "idempotency_key": idempotency_key,
            "max_retries": max_retries,
            "lease": lease,
            "metadata": metadata,
            "namespace": namespace,
        }
        check_unique(unique)
        return Configured(self, options.of_call(given), unique or self.unique)


class BatchTask(Task[[X], R_co], Generic[X, R_co]):
    """One whose handler takes a list of items. `enqueue` takes one item."""

    def __init__(self, function: Callable[[list[X]], R_co], app: App, *, batch: int, batch_wait: float, **options: Any) -> None:
        super().__init__(function, app, **options)  # type: ignore[arg-type]
        self.batch = batch
        self.batch_wait = batch_wait
        self.shape = codec.ItemShape(function)

    def __call__(self, items: list[X], /) -> R_co:  # type: ignore[override]
        return self.function(items)  # type: ignore[arg-type]


def check_unique(unique: str | None) -> None:
    if unique not in (None, "waiting"):
        raise ValueError(f"unique={unique!r}: 'waiting', or nothing")


def find(module: str, qualname: str) -> Task[..., Any]:
    """The task of that name in `module`, which is imported. Raises what the import does, TypeError where there is
    none.
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


@dataclass(frozen=True, slots=True)
class Configured(Generic[P, R_co]):
    """A task and the options its calls are queued with."""

    task: Task[P, Any]
    chosen: dict[str, Any]
    unique: Unique | None = None

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        return self.task.app.enqueue_many([self.message(*args, **kwargs)])[0]

    async def enqueue_async(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        return (await self.task.app.enqueue_many_async([self.message(*args, **kwargs)]))[0]

    def handle(self, id: int) -> Handle[R_co]:
        task = self.task
        return Handle(task.app.producer, task, id, m.TopicName(self.chosen.get("namespace", task.namespace), task.topic))

    def message(self, /, *args: P.args, **kwargs: P.kwargs) -> wire.EnqueueItem:
        task = self.task
        payload = task.shape.pack(task.name, args, kwargs)
        if len(payload) > m.PAYLOAD_MAX:
            raise ValueError(f"task {task.name}: its arguments take {len(payload):,} bytes, {m.PAYLOAD_MAX:,} are allowed")
        unique_key = task.shape.identity(task.name, args, kwargs) if self.unique is not None else None
        return msgspec.structs.replace(task.defaults, payload=payload, unique_key=unique_key, **self.chosen)
