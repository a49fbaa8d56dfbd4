"""An app: tasks, the broker they are queued at. `mqueue.task` belongs to the default one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar, Unpack, overload
from weakref import WeakSet
from zoneinfo import ZoneInfo

from mqueue import message as m
from mqueue import wire
from mqueue.schedule import CatchUp
from mqueue.worker.tasks import options, periodic
from mqueue.worker.tasks.handle import Handle, handle_of
from mqueue.worker.tasks.middleware import LogContext, Middleware, around, enqueue_hooks, run_hooks
from mqueue.worker.tasks.names import default_name
from mqueue.worker.tasks.producer import ClientOptions, Producer
from mqueue.worker.tasks.redefinition import code_of, replaces
from mqueue.worker.tasks.retry import Retry
from mqueue.worker.tasks.task import BatchTask, Task, Unique, check_unique

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")


class DuplicateTask(ValueError):
    """Two functions want the same task name."""


class MQueue:
    """`app = MQueue()`, then `@app.task`. `url`, `token`: its broker; without them it is found as
    `mqueue.client.endpoint` says.

    `namespace`: of the tasks that name none. `middleware`: around enqueues and handlers, the first the outermost.
    `timeout`, `retries`, `connections`, `batch`: of the clients that enqueue, and ask for its handles
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
    def task(
        self,
        /,
        *,
        topic: str = ...,
        priority: int = ...,
        max_retries: int | None = ...,
        retry: Retry | None = ...,
        executor: Literal["process"] | None = ...,
        time_limit: float | timedelta | None = ...,
        memory_limit_mb: float | None = ...,
        lease: float | timedelta | None = ...,
        max_run_time: float | timedelta | None = ...,
        result: bool = ...,
        result_ttl: float | timedelta | None = ...,
        cron: str | None = ...,
        timezone: str | ZoneInfo | None = ...,
        every: float | timedelta | None = ...,
        catch_up: CatchUp | None = ...,
        args: tuple[Any, ...] | list[Any] = ...,
        kwargs: dict[str, Any] | None = ...,
        name: str | None = ...,
        namespace: str | None = ...,
        unique: Unique | None = ...,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    @overload
    def task(
        self,
        /,
        *,
        batch: int,
        batch_wait: float | timedelta = ...,
        topic: str = ...,
        priority: int = ...,
        max_retries: int | None = ...,
        retry: Retry | None = ...,
        lease: float | timedelta | None = ...,
        max_run_time: float | timedelta | None = ...,
        name: str | None = ...,
        namespace: str | None = ...,
        unique: Unique | None = ...,
    ) -> Callable[[Callable[[list[X]], R]], BatchTask[X, R]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        topic: str = "default",
        priority: int = 0,
        max_retries: int | None = None,
        retry: Retry | None = None,
        executor: Literal["process"] | None = None,
        time_limit: float | timedelta | None = None,
        memory_limit_mb: float | None = None,
        lease: float | timedelta | None = None,
        max_run_time: float | timedelta | None = None,
        result: bool = False,
        result_ttl: float | timedelta | None = None,
        cron: str | None = None,
        timezone: str | ZoneInfo | None = None,
        every: float | timedelta | None = None,
        catch_up: CatchUp | None = None,
        args: tuple[Any, ...] | list[Any] = (),
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        namespace: str | None = None,
        unique: Unique | None = None,
        batch: int | None = None,
        batch_wait: float | timedelta | None = None,
    ) -> Any:
        """Mark a `def` (run in a thread) or `async def` (run on the loop) as a task.

        `priority`: lower runs first. `max_retries`, `lease`: None for the broker's defaults. `name` travels with the
        messages, by default module and name of the function: give one if the function may move. `retry`: its policy;
        its `max` is another word for `max_retries`. What lasts is given in seconds, or as a timedelta.

        `executor="process"`: run it in a process of its own, one of a pool. `time_limit` (seconds), `memory_limit_mb`
        (MiB, of the whole process): past it that process is killed; only there. `max_run_time` (seconds) is for the
        others: past it a handler on the loop is cancelled, one in a thread is asked to end, and what has not ended when
        the lease has runs elsewhere.

        `batch`: the handler takes a list of so many items at most, gathered for up to `batch_wait` (0.2) seconds, each
        queued by a call of its own; its topic is its own.

        `result=True`: what it returns is kept for `result_ttl` seconds (an hour): `task.enqueue(…).result()`. It is
        sent as JSON, in a type that an argument could have too.

        `cron` (five fields, by the clock of `timezone`, else UTC) or `every` (seconds, 1 at least): the broker enqueues
        it at these times, always with `args` and `kwargs` (64 KiB at most). `catch_up`: what becomes of a time when
        nobody could: *skip* it, run *one* for all, or *all*.

        `unique="waiting"`: while a call with the same arguments waits, enqueueing it again gives a handle on that one,
        which keeps its time and priority. One that runs does not count. Nor is a periodic task's tick ever left out.

        Raises DuplicateTask; ValueError, TypeError for an option that cannot be; TypeError for `args` and `kwargs` that
        do not fit, a batch's handler that takes no list.
        """
        namespace = namespace or self._namespace
        options.place(topic=topic, namespace=namespace)
        if name is not None and (not isinstance(name, str) or not name):
            raise TypeError(f"name={name!r}: a text that is not empty")
        if executor not in (None, "process"):
            raise ValueError(f"executor={executor!r}: 'process', or nothing: then a def runs in a thread, an async def on the loop")
        time_limit_s, memory_limit_mb = options.of_process(executor == "process", time_limit, memory_limit_mb)
        max_run_time_s = options.of_run(executor == "process", max_run_time)
        result_ttl_s = options.of_result(result, result_ttl)
        if retry is not None and not isinstance(retry, Retry):
            raise TypeError(f"retry={retry!r}: a policy, like Retry(max=5)")
        if retry is not None and retry.max is not None:
            if max_retries is not None:
                raise ValueError("max_retries= and Retry(max=) say the same in two ways: give one")
            max_retries = retry.max
        check_unique(unique)
        batch_wait_s = options.of_batch(batch, batch_wait, executor)
        if batch is not None and result:
            raise ValueError("batch= and result=True do not go together: what a batch's handler returns are verdicts")
        defaults = wire.EnqueueItem(
            topic=topic,
            namespace=namespace,
            priority=options.priority(priority),
            max_retries=options.max_retries(max_retries),
            lease=options.lease(lease),
        )

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            options.function(function)
            of_batch: dict[str, Any] = {} if batch is None else {"batch": batch, "batch_wait": batch_wait_s}
            made: Task[..., Any] = (Task if batch is None else BatchTask)(
                function,
                self,
                **of_batch,
                name=name or default_name(function),
                defaults=defaults,
                retry=retry,
                in_process=executor == "process",
                time_limit=time_limit_s,
                memory_limit_mb=memory_limit_mb,
                max_run_time=max_run_time_s,
                keeps_result=result,
                result_ttl=result_ttl_s,
                unique=unique,
            )
            made.periodic = periodic.plan(made, cron=cron, timezone=timezone, every=every, catch_up=catch_up, args=args, kwargs=kwargs)
            self._add(made)
            return made

        return register if function is None else register(function)

    def enqueue_many(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]:
        """Queue many calls, of any of its tasks: `app.enqueue_many(send.message(to) for to in readers)`. Handles on
        them, in order.

        Sent 1,000 at a time: when a later request is refused, the earlier ones stand.
        """
        items = list(messages)
        with around(self._enqueue_hooks, items):
            ids = self.producer.enqueue_many(items)
        return self._handles(ids, items)

    async def enqueue_many_async(self, messages: Iterable[wire.EnqueueItem]) -> list[Handle[Any]]:
        """`enqueue_many`, on an event loop."""
        items = list(messages)
        with around(self._enqueue_hooks, items):
            ids = await self.producer.enqueue_many_async(items)
        return self._handles(ids, items)

    def _handles(self, ids: Sequence[int], items: Sequence[wire.EnqueueItem]) -> list[Handle[Any]]:
        return [handle_of(self.producer, id, item, self._tasks) for id, item in zip(ids, items, strict=True)]

    def get(self, name: str) -> Task[..., Any] | None:
        return self._tasks.get(name)

    def topics(self, namespace: str | None = None) -> list[m.TopicName]:
        """Where the tasks' messages are, sorted. `namespace` is used in place of the tasks' own."""
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
    """All that this process has."""
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
