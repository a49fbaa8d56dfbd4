"""A periodic task ticks on a clock that tests move."""

from importlib.util import find_spec
from typing import Any

import msgspec

from mqueue import message as m
from mqueue import schedule, wire
from mqueue.worker.tasks.task import Task


class Periodic:
    """Its schedule begins at `start_us` (µs since 1970), as if it had been declared then. `next_us` is its next tick;
    None: there is none.
    """

    def __init__(self, task: Task[..., Any], item: wire.ScheduleItem, start_us: int) -> None:
        """Raises ModuleNotFoundError, saying what to install."""
        if item.cron is not None and find_spec("cronsim") is None:
            raise ModuleNotFoundError(f"the cron= of task {task.name} needs pip install 'mqueue[broker]' (cronsim missing)", name="cronsim")
        self.task = task
        self._item = item
        self._spec = schedule.Spec(item.cron, item.timezone, int((item.every or 0) * 1e6), start_us)
        self.next_us = schedule.next_after(self._spec, start_us)

    def due(self, now_us: int) -> list[wire.EnqueueItem]:
        """Returns what is to be enqueued now; missed ticks by the catch-up policy, at most BATCH_MAX at a look."""
        if self.next_us is None:
            return []
        due = schedule.due(self._spec, self._item.catch_up, self.next_us, now_us, m.BATCH_MAX)
        self.next_us = due.next_us
        return [self._message(tick) for tick in due.ticks]

    def _message(self, tick_us: int) -> wire.EnqueueItem:
        item = self._item
        return wire.EnqueueItem(
            topic=item.topic,
            namespace=item.namespace,
            priority=item.priority,
            payload=item.payload,
            max_retries=item.max_retries,
            lease=item.lease,
            metadata=msgspec.json.decode(schedule.tagged(None, self.task.name, tick_us)),
        )
