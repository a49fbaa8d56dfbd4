"""The broker in memory refuses what `Client` has for schedules: nobody ticks there."""

from typing import NoReturn

from mqueue import message as m
from mqueue import wire


class Unscheduled:
    """Each method raises NotImplementedError, which says what there is instead."""

    def schedules(self, namespace: str = m.DEFAULT_NAMESPACE) -> list[wire.Schedule]:
        _refuse()

    def schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule | None:
        _refuse()

    def put_schedule(self, name: str, item: wire.ScheduleItem) -> wire.Schedule:
        _refuse()

    def pause_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule:
        _refuse()

    def resume_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule:
        _refuse()

    def run_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> int:
        _refuse()

    def delete_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> bool:
        _refuse()


def _refuse() -> NoReturn:
    raise NotImplementedError(
        "the broker in memory keeps no schedules: mqueue_manual.schedule(task) makes a periodic task tick, mqueue_broker has all of them"
    )
