"""Each option of tasks and of calls is declared here, once, and nowhere else.

Its declaration has its name and its type, and an `Option`: its default, its check, what it does. From that come

    what type checkers and editors know    the classes are TypedDicts, and the signatures `Unpack` them
    what is accepted, and checked          `check_task`, `check_call`
    what a task keeps                      `Task.told`, a read-only mapping of every option: `task.told["lease"]`
    what its messages carry                `fields`: an option with the name of a field of `EnqueueItem` is sent
    whether two tasks are the same         `redefinition.py` compares what they keep
    the help and the page                  `reference.py`

An option exists in two forms: as a user gives it and as it is kept. They differ in what lasts: `TaskOptions[Seconds]`
may have a timedelta there, `TaskOptions[float]` has seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar, cast, get_args
from zoneinfo import ZoneInfo

from mqueue import message as m
from mqueue import wire
from mqueue.schedule import CatchUp
from mqueue.worker.tasks import checks
from mqueue.worker.tasks.retry import Retry

PRIORITY_MAX = 2**31 - 1
LEASE_MIN_S = 0.05
BATCH_MAX = 1000  # as many as one poll brings
BATCH_WAIT_S = 0.2
BATCH_WAIT_MAX_S = 60.0
AHEAD_MAX_S = 100 * 365 * 86400.0  # of a delay, and a ttl

Lasts = TypeVar("Lasts")  # checks.Seconds as it is given, float as it is kept
Unique = Literal["waiting"]


@dataclass(frozen=True, slots=True)
class Option:
    """This says of an option what its name and type do not. Where the type has None, None stands for the default, and
    is not checked.
    """

    default: Any
    check: Callable[[str, Any], Any]
    help: str
    see: str = ""  # the section of docs/worker.md that tells more
    field: str = ""  # of EnqueueItem, where it has another name there


def _policy(option: str, value: object) -> object:
    if not isinstance(value, Retry):
        raise TypeError(f"{option}={value!r}: a policy, like Retry(max=5)")
    return value


_priority = partial(checks.whole, least=-PRIORITY_MAX - 1, most=PRIORITY_MAX)
_retries = partial(checks.whole, least=0, most=m.RETRIES_MAX)
_lease = partial(checks.seconds, least=LEASE_MIN_S, most=m.LEASE_MAX_S)
_ahead = partial(checks.seconds, least=0, most=AHEAD_MAX_S)
_limit = partial(checks.seconds, least=0, most=AHEAD_MAX_S, above=True)
_kept = partial(checks.seconds, least=0, most=m.RESULT_TTL_MAX_S, above=True)
_wait = partial(checks.seconds, least=0, most=BATCH_WAIT_MAX_S)
_size = partial(checks.size, most=BATCH_MAX)
_unique = partial(checks.choice, choices=("waiting",), says="'waiting', or nothing")
_executor = partial(checks.choice, choices=("process",), says="'process', or nothing: then a def runs in a thread, an async def on the loop")


class SharedOptions(TypedDict, Generic[Lasts], total=False):
    """Every task may have these."""

    topic: Annotated[str, Option("default", checks.place, "its messages are queued there")]
    priority: Annotated[int, Option(0, _priority, "lower runs first")]
    name: Annotated[
        str | None, Option(None, checks.text, "it travels with the messages; give one if the function may move, else it is `module.function`")
    ]
    namespace: Annotated[str | None, Option(None, checks.place, "its messages are in it; else in that of the app")]
    max_retries: Annotated[
        int | None, Option(None, _retries, "it becomes a dead letter after so many; else after as many as the broker is set to")
    ]
    lease: Annotated[
        Lasts | None, Option(None, _lease, "a worker that has vanished loses the job after this time; else after what the broker is set to")
    ]
    retry: Annotated[
        Retry | None, Option(None, _policy, "this policy says what is tried again, and when; its `max` stands for `max_retries`", "retries")
    ]
    max_run_time: Annotated[
        Lasts | None,
        Option(None, _limit, "after this time a handler on the loop is cancelled, and one in a thread is asked to end", "where-it-runs"),
    ]
    unique: Annotated[
        Unique | None,
        Option(None, _unique, "`waiting`: while one call waits, another with the same arguments gives a handle on that one", "unique"),
    ]


class PeriodicOptions(TypedDict, Generic[Lasts], total=False):
    """These say when a task runs by itself. `periodic.plan` checks them, since its errors name the task."""

    cron: Annotated[str | None, Option(None, checks.as_given, "five fields; the broker enqueues it at these times", "periodic-tasks")]
    timezone: Annotated[
        str | ZoneInfo | None, Option(None, checks.as_given, "`cron` goes by the clock of this zone; else by UTC", "periodic-tasks")
    ]
    every: Annotated[Lasts | None, Option(None, checks.in_seconds, "the broker enqueues it so often, once a second at most", "periodic-tasks")]
    catch_up: Annotated[
        CatchUp | None,
        Option(
            None,
            checks.as_given,
            "of the times when nobody could enqueue it, `skip` all, run `one` for all (so it is by default), or run `all`",
            "periodic-tasks",
        ),
    ]
    args: Annotated[
        tuple[Any, ...] | list[Any], Option((), checks.as_given, "each time calls it with these; they take 64 KiB at most", "periodic-tasks")
    ]
    kwargs: Annotated[dict[str, Any] | None, Option(None, checks.as_given, "each time calls it with these as well", "periodic-tasks")]


class PlainOptions(SharedOptions[Lasts], PeriodicOptions[Lasts], Generic[Lasts], total=False):
    """A task that takes one call at a time may have these."""

    executor: Annotated[
        Literal["process"] | None, Option(None, _executor, "`process`: it runs in a process of its own, one of a pool", "where-it-runs")
    ]
    time_limit: Annotated[Lasts | None, Option(None, _limit, "with `executor`: its process is killed after this time", "where-it-runs")]
    memory_limit_mb: Annotated[
        float | None, Option(None, checks.mebibytes, "with `executor`: its process is killed when it holds more MiB", "where-it-runs")
    ]
    result: Annotated[bool, Option(False, checks.truth, "what it returns is kept, as JSON, for `task.enqueue(…).result()`", "results")]
    result_ttl: Annotated[Lasts | None, Option(m.RESULT_TTL_S, _kept, "with `result`: it is kept for this time", "results")]


class BatchOptions(SharedOptions[Lasts], Generic[Lasts], total=False):
    """A task with `batch`, whose handler takes a list of items, may have these."""

    batch_wait: Annotated[Lasts | None, Option(BATCH_WAIT_S, _wait, "with `batch`: items are gathered for this time at most", "batches")]


class TaskOptions(PlainOptions[Lasts], BatchOptions[Lasts], Generic[Lasts], total=False):
    """These are all options of a task. `batch` stands apart: a type checker knows both kinds of tasks by it."""

    batch: Annotated[int | None, Option(None, _size, "its handler takes a list of so many items at most; its topic is its own", "batches")]


class CallOptions(TypedDict, Generic[Lasts], total=False):
    """These are all options of a call. None stands for what the task has."""

    priority: Annotated[int | None, Option(None, _priority, "lower runs first")]
    delay: Annotated[Lasts | None, Option(None, _ahead, "it does not run before this time has passed")]
    at: Annotated[
        datetime | None,
        Option(None, checks.instant, "it does not run before this time, which has a zone; in place of `delay`", field="deliver_after"),
    ]
    ttl: Annotated[Lasts | None, Option(None, _limit, "it expires after this time unless a worker has it")]
    idempotency_key: Annotated[str | None, Option(None, checks.key, "the same key again is the same message")]
    max_retries: Annotated[int | None, Option(None, _retries, "it becomes a dead letter after so many")]
    lease: Annotated[Lasts | None, Option(None, _lease, "a worker that has vanished loses the job after this time")]
    metadata: Annotated[dict[str, Any] | None, Option(None, checks.mapping, "this JSON object travels along, as `current().metadata`")]
    namespace: Annotated[str | None, Option(None, checks.place, "its message is in it")]
    unique: Annotated[
        Unique | None,
        Option(None, _unique, "`waiting`: while one call waits, another with the same arguments gives a handle on that one", "unique"),
    ]


@dataclass(frozen=True, slots=True)
class Declared:
    """These are the options that a class declares, by name."""

    whose: str
    options: dict[str, Option]
    optional: frozenset[str]  # None stands for their defaults
    sent: dict[str, str]  # each with the field of a message that it sets


def declared(whose: str, declaration: Any) -> Declared:
    """Read the declarations of a class. Raises TypeError for one without an Option."""
    options: dict[str, Option] = {}
    optional: set[str] = set()
    sent: dict[str, str] = {}
    for name, annotation in declaration.__annotations__.items():
        kind, option, *_ = *get_args(annotation), None, None
        if not isinstance(option, Option):
            raise TypeError(f"{declaration.__name__}.{name} in {__name__}: write it as Annotated[type, Option(default, check, help)]")
        options[name] = option
        if NoneType in get_args(kind):
            optional.add(name)
        if (field := option.field or name) in wire.EnqueueItem.__struct_fields__:
            sent[name] = field
    return Declared(whose, options, frozenset(optional), sent)


TASK = declared("task", TaskOptions)
CALL = declared("call", CallOptions)
PERIODIC = frozenset(PeriodicOptions.__annotations__)


def check_task(given: Mapping[str, Any], namespace: str) -> TaskOptions[float]:
    """Check the options of a task. It keeps every option, with its default where none is given. `namespace` is that of
    the app.

    Raises TypeError, ValueError.
    """
    chosen = _each(TASK, {**given, "namespace": given.get("namespace") or namespace})
    told = cast(TaskOptions[float], {**{name: option.default for name, option in TASK.options.items()}, **chosen})
    _check_together(told, chosen)
    if told["retry"] is not None and told["retry"].max is not None:
        told["max_retries"] = told["retry"].max
    return told


def check_call(given: Mapping[str, Any]) -> CallOptions[float]:
    """Check the options of a call: those that are given and not None. Raises TypeError, ValueError."""
    if given.get("at") is not None and given.get("delay") is not None:
        raise ValueError("delay= and at= say the same in two ways: give one")
    return cast("CallOptions[float]", _each(CALL, given))  # quoted, or it is made anew for each call


def fields(of: Declared, told: Mapping[str, Any]) -> dict[str, Any]:
    """These options set these fields of a message."""
    sent = of.sent
    return {sent[name]: value for name, value in told.items() if name in sent}


def read_only(told: TaskOptions[float]) -> TaskOptions[float]:
    """Make the options unchangeable: whoever reads them relies on the checks."""
    return cast(TaskOptions[float], MappingProxyType(told))


def _each(of: Declared, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check each option by itself. Raises TypeError for one that there is not."""
    options, optional, chosen = of.options, of.optional, {}
    for name, value in given.items():
        if (option := options.get(name)) is None:
            raise TypeError(f"there is no option {name!r} for a {of.whose}; there are {', '.join(sorted(options))}")
        if value is not None or name not in optional:
            chosen[name] = option.check(name, value)
    return chosen


def _check_together(told: TaskOptions[float], chosen: Mapping[str, Any]) -> None:
    """Check which options go together; `chosen` are those that are given. Raises ValueError."""
    executor = told["executor"]
    if executor is None and ("time_limit" in chosen or "memory_limit_mb" in chosen):
        raise ValueError("time_limit= and memory_limit_mb= need executor='process'")
    if executor is not None and "max_run_time" in chosen:
        raise ValueError("max_run_time= is for handlers on the loop and in threads: with executor='process' there is time_limit=")
    if "result_ttl" in chosen and not told["result"]:
        raise ValueError("result_ttl= needs result=True")
    if "max_retries" in chosen and told["retry"] is not None and told["retry"].max is not None:
        raise ValueError("max_retries= and Retry(max=) say the same in two ways: give one")
    if told["batch"] is None:
        if "batch_wait" in chosen:
            raise ValueError("batch_wait= needs batch=")
        return
    if executor is not None:
        raise ValueError(f"batch= and executor={executor!r} do not go together: a batch runs in a thread, or on the loop")
    if told["result"]:
        raise ValueError("batch= and result=True do not go together: what a batch's handler returns are verdicts")
