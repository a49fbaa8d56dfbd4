"""The heartbeat's thread lives through whatever a renewal brings."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from mqueue import wire
from mqueue.clock import SystemClock
from mqueue.errors import Unavailable
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.job import Job
from mqueue.worker.watching import heartbeat
from mqueue.worker.watching.heartbeat import Heartbeat


def job(id: int) -> Job:
    now = datetime.now(UTC)
    message = wire.Message(
        id=id, namespace="default", topic="t", priority=0, payload=b"", deliver_after=now, created_at=now, attempt=1, max_retries=3,
        receipt="1-1", lease_expires_at=now + timedelta(seconds=0.3), lease=0.3,
    )  # fmt: skip
    return Job(message, MQueue().task(topic="t", name="t")(lambda: None), [], {}, 0.3)


def unavailable(items: Sequence[wire.ExtendItem]) -> list[wire.Verdict]:
    raise Unavailable("down")


def garbled(items: Sequence[wire.ExtendItem]) -> list[wire.Verdict]:
    raise ValueError("not what a broker says")


def too_few(items: Sequence[wire.ExtendItem]) -> list[wire.Verdict]:
    return [wire.Verdict(items[0].id, "gone")][: len(items) - 1]


@pytest.mark.parametrize("mishap", [unavailable, garbled, too_few])
def test_a_renewal_that_fails_is_tried_again(
    mishap: Callable[[Sequence[wire.ExtendItem]], list[wire.Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "RETRY_S", 0.01)
    renewed, asked = threading.Event(), 0
    lost: list[Job] = []

    def extend(items: Sequence[wire.ExtendItem]) -> list[wire.Verdict]:
        nonlocal asked
        asked += 1
        if asked == 1:
            return mishap(items)
        renewed.set()
        return [wire.Verdict(item.id, "ok") for item in items]

    beat = Heartbeat(extend, lost.append, SystemClock())
    for id in (1, 2):
        beat.hold(job(id))
    beat.start()
    try:
        assert renewed.wait(5)
        assert lost == []
    finally:
        beat.stop()


def test_a_job_that_ended_in_time_keeps_its_lease_until_that_is_settled() -> None:
    """Its settle may have to wait for the broker for longer than the job may run."""
    renewals: list[int] = []
    enough = threading.Event()
    overdue: list[Job] = []

    def extend(items: Sequence[wire.ExtendItem]) -> list[wire.Verdict]:
        renewals.extend(item.id for item in items)
        if len(renewals) == 4:
            enough.set()
        return [wire.Verdict(item.id, "ok") for item in items]

    beat = Heartbeat(extend, lambda job: None, SystemClock(), overdue.append)
    ended, runs = job(1), job(2)
    for each in (ended, runs):
        beat.hold(each)
        beat.limit(each, 0.05)
    ended.ended = True
    beat.start()
    try:
        assert enough.wait(5)
    finally:
        beat.stop()
    assert overdue == [runs] and renewals == [1] * 4
