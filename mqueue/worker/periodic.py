"""Periodic tasks: what a decorator says of when its task runs. A worker tells the broker so (`declarer.py`), which keeps the schedules."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from mqueue import message as m
from mqueue import schedule, wire
from mqueue.worker import codec

if TYPE_CHECKING:
    from mqueue.worker.task import Task

_NAME = re.compile(m.NAME_PATTERN)


def plan(
    task: "Task[..., Any]", *, cron: str | None, timezone: str | None, every: float | timedelta | None, catch_up: schedule.CatchUp | None
) -> wire.ScheduleItem | None:
    """The schedule of a task; None where it has none. Raises ValueError for one that cannot be, TypeError for a task that needs arguments."""
    if cron is None and every is None:
        if timezone is not None or catch_up is not None:
            raise ValueError(f"task {task.name}: timezone= and catch_up= are for a task with cron= or every=")
        return None
    if timezone is not None and cron is None:
        raise ValueError(f"task {task.name}: timezone= is for cron=")
    if catch_up not in (None, *get_args(schedule.CatchUp)):
        raise ValueError(f"task {task.name}: catch_up={catch_up!r}: 'skip', 'one' or 'all'")
    if not _NAME.fullmatch(task.name):
        raise ValueError(f"task {task.name} is periodic: give it a name= of 1 to {m.NAME_MAX} letters, digits, _ . -")
    seconds = every.total_seconds() if isinstance(every, timedelta) else every
    try:
        schedule.check(cron, timezone or "UTC", seconds)
    except schedule.BadSchedule as bad:
        raise ValueError(f"task {task.name}: {bad.field}=: {bad}") from None
    try:
        task.shape.signature.bind()
    except TypeError as error:
        raise TypeError(f"task {task.name} is periodic, and runs without arguments: {error}") from None
    message = task.defaults
    return wire.ScheduleItem(
        topic=message.topic, namespace=message.namespace, cron=cron, timezone=timezone or "UTC", every=seconds, catch_up=catch_up or "one",
        priority=message.priority, payload=codec.encode(task.name, (), {}), max_retries=message.max_retries, lease=message.lease, declared=True,
    )  # fmt: skip


def of(tasks: "list[Task[..., Any]]", namespace: str | None, sources: set[m.TopicName]) -> dict[str, wire.ScheduleItem]:
    """What a worker of these topics declares, by name. `namespace`: in place of the tasks' own."""
    items = {
        t.name: msgspec.structs.replace(t.periodic, namespace=namespace or t.namespace) for t in tasks if t.periodic is not None
    }  # fmt: skip
    return {name: item for name, item in items.items() if m.TopicName(item.namespace, item.topic) in sources}
