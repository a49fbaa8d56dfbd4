"""What was enqueued in a test is recorded here, and held against what the test claims of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from inspect import Parameter
from typing import Any, TypedDict, Unpack

from mqueue import wire
from mqueue.testing.redirect import task_of
from mqueue.worker.arguments import codec
from mqueue.worker.tasks.task import App, Task

SHOWN_MAX = 20  # jobs that a failure lists


class Options(TypedDict, total=False):
    """A job was enqueued with these. `metadata`: at least these items. `at`: a time with its zone."""

    topic: str
    namespace: str
    priority: int
    delay: float
    at: datetime
    ttl: float
    idempotency_key: str
    max_retries: int
    lease: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Enqueued:
    """It is one call of a task that was enqueued; `args`, `kwargs` as the handler gets them. `message`:
    what went over the wire.
    """

    id: int
    task: Task[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    message: wire.EnqueueItem

    @property
    def metadata(self) -> dict[str, Any]:
        return self.message.metadata or {}

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        message = self.message
        shown = {
            "topic": message.topic, "priority": message.priority or None, "delay": message.delay, "at": message.deliver_after,
            "ttl": message.ttl, "idempotency_key": message.idempotency_key, "metadata": message.metadata,
        }  # fmt: skip
        options = [f"{name}={value}" for name, value in shown.items() if value is not None]
        return f"{self.task.name}({', '.join(given)})  [{' '.join(options)}]"


class Recorder:
    """`enqueued` has all so far, in order."""

    def __init__(self) -> None:
        self.enqueued: list[Enqueued] = []

    def record(self, app: App, id: int, item: wire.EnqueueItem) -> Enqueued:
        task, args, kwargs = task_of(app, item)
        self.enqueued.append(made := Enqueued(id, task, tuple(args), kwargs, item))
        return made

    def find(
        self,
        task: Task[..., Any] | str,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> list[Enqueued]:
        """Returns the jobs of the task (or its name) whose arguments and options equal all that is named; what is not
        named may be anything.

        An argument is the same by position or by name. Raises TypeError for arguments that the task does not have.
        """
        name = task if isinstance(task, str) else task.name
        named = [e for e in self.enqueued if e.task.name == name]
        if isinstance(task, Task):
            task.shape.signature.bind_partial(*(args or ()), **(kwargs or {}))
        return [e for e in named if _has_arguments(e, args or (), kwargs or {}) and _has_options(e.message, options)]

    def assert_enqueued(
        self,
        task: Task[..., Any] | str,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        count: int | None = None,
        **options: Unpack[Options],
    ) -> list[Enqueued]:
        """`find` finds some, or `count` of them: they are returned. Otherwise an AssertionError says
        what there was instead.
        """
        __tracebackhide__ = True
        found = self.find(task, args=args, kwargs=kwargs, **options)
        if len(found) == count or (count is None and found):
            return found
        wanted = "a job" if count is None else f"{count} of them"
        raise AssertionError(self._say(f"expected {wanted}, found {len(found)}", task, args, kwargs, options))

    def refute_enqueued(
        self,
        task: Task[..., Any] | str,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """`find` finds none. Otherwise an AssertionError says what there was."""
        __tracebackhide__ = True
        if found := self.find(task, args=args, kwargs=kwargs, **options):
            raise AssertionError(self._say(f"expected none, found {len(found)}", task, args, kwargs, options))

    def clear(self) -> None:
        """Forget what was enqueued; what waits goes on waiting."""
        self.enqueued.clear()

    def _say(self, head: str, task: Task[..., Any] | str, args: object, kwargs: object, options: Mapping[str, Any]) -> str:
        wanted = {"args": args, "kwargs": kwargs, **options}
        claim = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
        lines = [f"{head}: {task if isinstance(task, str) else task.name} {claim}".rstrip()]
        lines += ["enqueued were:" if self.enqueued else "nothing was enqueued"]
        lines += [f"    {each}" for each in self.enqueued[:SHOWN_MAX]]
        if (more := len(self.enqueued) - SHOWN_MAX) > 0:
            lines.append(f"    … and {more} more")
        return "\n".join(lines)


def _has_arguments(job: Enqueued, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    signature = job.task.shape.signature
    try:
        expected = signature.bind_partial(*args, **kwargs)
    except TypeError:
        return False
    actual = signature.bind(*job.args, **job.kwargs)
    actual.apply_defaults()
    return all(_agrees(signature.parameters[name].kind, value, actual.arguments.get(name)) for name, value in expected.arguments.items())


def _agrees(kind: object, expected: Any, actual: Any) -> bool:
    """Does it agree? Of `**kwargs` only those count that are named, of `*args` the first ones: the
    rest may be anything.
    """
    if kind is Parameter.VAR_KEYWORD:
        return all(name in actual and _same(value, actual[name]) for name, value in expected.items())
    if kind is Parameter.VAR_POSITIONAL:
        return len(expected) <= len(actual) and all(map(_same, expected, actual))
    return _same(expected, actual)


def _has_options(message: wire.EnqueueItem, wanted: Mapping[str, Any]) -> bool:
    for name, value in wanted.items():
        if name == "metadata":
            metadata = message.metadata or {}
            if any(key not in metadata or not _same(each, metadata[key]) for key, each in value.items()):
                return False
        elif getattr(message, "deliver_after" if name == "at" else name) != value:
            return False
    return True


def _same(expected: Any, actual: Any) -> bool:
    """Are they equal, perhaps once `expected` has gone through the codec? A tuple comes back as a list."""
    if expected == actual:
        return True
    try:
        return bool(codec.decode(codec.encode("", [expected], {})).args[0] == actual)
    except TypeError:
        return False
