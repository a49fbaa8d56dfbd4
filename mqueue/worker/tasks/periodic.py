"""A decorator may say when its task runs by itself. From that a schedule is planned here; a worker declares it to the
broker (`declarer.py`), which keeps the schedules.
"""

import re
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec

from mqueue import message as m
from mqueue import schedule, wire
from mqueue.worker.arguments import codec
from mqueue.worker.tasks import checks
from mqueue.worker.tasks.task import Task

_NAME = re.compile(m.NAME_PATTERN)


def plan(task: Task[..., Any]) -> wire.ScheduleItem | None:
    """Plan the schedule of a task; None where its options ask for none. Raises ValueError for a schedule that cannot
    be, TypeError for arguments that do not fit.
    """
    told = task.told
    cron, timezone, every, catch_up = told["cron"], told["timezone"], told["every"], told["catch_up"]
    args, kwargs = told["args"], told["kwargs"]
    if cron is None and every is None:
        if timezone is not None or catch_up is not None or args or kwargs:
            raise ValueError(f"task {task.name}: timezone=, catch_up=, args= and kwargs= are for a task with cron= or every=")
        return None
    if timezone is not None and cron is None:
        raise ValueError(f"task {task.name}: timezone= is for cron=")
    if catch_up not in (None, *get_args(schedule.CatchUp)):
        raise ValueError(f"task {task.name}: catch_up={catch_up!r}: 'skip', 'one' or 'all'")
    if not _NAME.fullmatch(task.name):
        raise ValueError(f"task {task.name} is periodic: give it a name= of 1 to {m.NAME_MAX} letters, digits, _ . -")
    if every is not None:
        checks.number(f"task {task.name}: every", every, "seconds, or a timedelta")
    if cron is not None and not isinstance(cron, str):
        raise TypeError(f"task {task.name}: cron={cron!r}: a text of five fields, like '0 4 * * MON-FRI'")
    zone = timezone.key if isinstance(timezone, ZoneInfo) else timezone
    if timezone is not None and not isinstance(zone, str):
        raise TypeError(f"task {task.name}: timezone={timezone!r}: a name like 'Europe/Berlin', or a ZoneInfo that has one")
    try:
        schedule.check(cron, zone or "UTC", every)
    except schedule.BadSchedule as bad:
        raise ValueError(f"task {task.name}: {bad.field}=: {bad}") from None
    message = task.defaults
    return wire.ScheduleItem(
        topic=message.topic, namespace=message.namespace, cron=cron, timezone=zone or "UTC", every=every, catch_up=catch_up or "one",
        priority=message.priority, payload=_call(task, args, kwargs or {}), max_retries=message.max_retries, lease=message.lease, declared=True,
    )  # fmt: skip


def _call(task: Task[..., Any], args: tuple[Any, ...] | list[Any], kwargs: dict[str, Any]) -> bytes:
    """Pack the call that each tick queues. Raises TypeError for one that no worker could run, ValueError for one too
    large.
    """
    if not isinstance(args, tuple | list):
        raise TypeError(f"task {task.name}: args={args!r} is no tuple: like args=({args!r},)")
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise TypeError(f"task {task.name}: kwargs={kwargs!r} is no dict by parameter names")
    if not (args or kwargs):  # no argument is given, so the annotations need not be readable yet
        try:
            task.shape.signature.bind()
        except TypeError as error:
            raise TypeError(f"task {task.name} is periodic: give its ticks args= or kwargs=: {error}") from None
        return codec.encode(task.name, (), {})
    try:
        task.shape.prepare()
    except codec.Unreadable as error:
        raise TypeError(
            f"task {task.name}: the arguments of its ticks are checked here: define what its annotations name above it: {error}"
        ) from None
    task.shape.pack(task.name, args, kwargs)
    payload = codec.encode(task.name, args, kwargs, steady=True)
    if len(payload) > schedule.PAYLOAD_MAX:
        raise ValueError(f"task {task.name}: its args= and kwargs= take {len(payload):,} bytes, {schedule.PAYLOAD_MAX:,} are allowed")
    return payload


def of(tasks: list[Task[..., Any]], namespace: str | None, sources: set[m.TopicName]) -> dict[str, wire.ScheduleItem]:
    """A worker of these topics declares these schedules, by name. `namespace` is used in place of the tasks' own."""
    items = {
        t.name: msgspec.structs.replace(t.periodic, namespace=namespace or t.namespace) for t in tasks if t.periodic is not None
    }  # fmt: skip
    return {name: item for name, item in items.items() if m.TopicName(item.namespace, item.topic) in sources}
