"""How a job ends by each set of interrupts and each way in which its handler may end: one table. And what a batch makes
of its items' interrupts.
"""

from datetime import UTC, datetime
from itertools import permutations

import pytest

from mqueue import MQueue, Retry, Snooze, wire
from mqueue.worker.arguments.codec import Misfit
from mqueue.worker.running.batch import job_of
from mqueue.worker.running.ending import ending, endings
from mqueue.worker.running.interrupts import Interrupts
from mqueue.worker.running.outcome import RELEASED, Outcome, decide, decide_each, done
from mqueue.worker.tasks.job import Current, Interrupt, Job
from mqueue.worker.tasks.signals import Bury, RateLimited, TimeLimit

ENDS = {
    "returned": done(b"7", 60.0),
    "failed": decide(ValueError("x")),
    "policy": decide(KeyError("x"), retry=Retry(never=(KeyError,))),  # says that it is not tried again
    "bury": decide(Bury("never")),
    "snooze": decide(Snooze(5)),
    "misfit": decide(Misfit("argument 1 does not fit")),
    "cut off": RELEASED,  # it had not begun, or had no time left to end
}
TOO_LONG = Outcome("nack", "TimeLimit")
OUTCOMES = {"nothing": None, "cancel": Outcome("cancel"), "release": Outcome("release"), "limit": TOO_LONG}

TABLE = """
                                    | returned | failed  | policy  | bury    | snooze  | misfit  | cut off
                                    | as it is | as it is| as it is| as it is| as it is| as it is| as it is
lost                                | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
cancelled                           | as it is | cancel  | cancel  | cancel  | cancel  | cancel  | cancel
stopping                            | as it is | release | release | as it is| as it is| as it is| release
overdue                             | as it is | limit   | limit   | limit   | limit   | limit   | (never)
lost cancelled                      | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
lost stopping                       | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
lost overdue                        | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
cancelled stopping                  | as it is | cancel  | cancel  | cancel  | cancel  | cancel  | cancel
cancelled overdue                   | as it is | cancel  | cancel  | cancel  | cancel  | cancel  | cancel
stopping overdue                    | as it is | release | release | as it is| as it is| as it is| release
lost cancelled stopping             | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
lost cancelled overdue              | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
lost stopping overdue               | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
cancelled stopping overdue          | as it is | cancel  | cancel  | cancel  | cancel  | cancel  | cancel
lost cancelled stopping overdue     | nothing  | nothing | nothing | nothing | nothing | nothing | nothing
"""
HEAD, *ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip("\n").splitlines()]


def reasons(names: str) -> frozenset[Interrupt]:
    return frozenset(Interrupt[name.upper()] for name in names.split())


def test_the_table_is_whole() -> None:
    assert HEAD[1:] == list(ENDS) and len({reasons(row[0]) for row in ROWS}) == 2 ** len(Interrupt)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0] or "not interrupted")
def test_how_a_job_ends(row: list[str]) -> None:
    for (name, ran), cell in zip(ENDS.items(), row[1:], strict=True):
        if cell == "(never)":  # what is cut off is stopping, or not running yet
            continue
        expected = ran if cell == "as it is" else OUTCOMES[cell]
        assert ending(reasons(row[0]), ran, lambda: TOO_LONG) == expected, name


def message(id: int, attempt: int = 1) -> wire.Message:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    return wire.Message(
        id=id, namespace="default", topic="t", priority=0, payload=b"", deliver_after=now, created_at=now, attempt=attempt, max_retries=3,
        receipt="1-1", lease_expires_at=now, lease=30.0,
    )  # fmt: skip


class Running:
    """A batch of two that runs, and counts how often its handler is told to end."""

    def __init__(self) -> None:
        task = MQueue().task(topic="t", name="t", batch=2, max_run_time=9, retry=Retry(never=(TimeLimit,)))(lambda items: None)
        self.items = [Job(message(id), task, [id], {}, 30.0) for id in (1, 2)]
        self.batch = job_of(self.items)
        self.batch.cancel = self._told
        self.interrupts = Interrupts({self.batch})
        self.told = 0

    def _told(self) -> None:
        self.told += 1

    def happens(self, what: str) -> None:
        kind, _, item = what.partition(" ")
        if kind == "stop":
            assert self.interrupts.stopping(self.batch)
        elif kind == "cancel":
            self.interrupts.cancelled([int(item)])
        else:
            {"lose": self.interrupts.lost, "limit": self.interrupts.overdue}[kind](self.items[int(item) - 1])

    def kinds(self, ran: Outcome) -> list[str | None]:
        return [outcome and outcome.kind for outcome in endings(self.batch, [ran, ran], lambda: 0.5)]


@pytest.mark.parametrize(
    ("events", "told", "failed", "returned"),
    [
        (["lose 1"], 0, [None, "nack"], [None, "ack"]),
        (["cancel 1"], 0, ["cancel", "nack"], ["ack", "ack"]),
        (["lose 1", "lose 2"], 1, [None, None], [None, None]),
        (["cancel 1", "cancel 2"], 1, ["cancel", "cancel"], ["ack", "ack"]),
        (["lose 1", "cancel 2"], 1, [None, "cancel"], [None, "ack"]),
        (["cancel 1", "lose 1"], 0, [None, "nack"], [None, "ack"]),
        (["limit 1"], 1, ["bury", "bury"], ["ack", "ack"]),
        (["limit 1", "limit 2"], 1, ["bury", "bury"], ["ack", "ack"]),
        (["limit 1", "cancel 2"], 1, ["bury", "cancel"], ["ack", "ack"]),
        (["stop"], 1, ["release", "release"], ["ack", "ack"]),
        (["stop", "limit 1"], 2, ["release", "release"], ["ack", "ack"]),
        (["stop", "cancel 2"], 1, ["release", "cancel"], ["ack", "ack"]),
        (["stop", "lose 1"], 1, [None, "release"], [None, "ack"]),
    ],
)
def test_a_batch_ends_item_by_item(events: list[str], told: int, failed: list[str | None], returned: list[str | None]) -> None:
    """Its handler goes on until no item is wanted here, it has run for too long, or the worker stops."""
    for order in permutations(events):
        running = Running()
        for event in order:
            running.happens(event)
        assert (running.told, running.kinds(decide(ValueError())), running.kinds(done(None, 0.0))) == (told, failed, returned), order


def test_a_handler_sees_that_it_is_interrupted_whatever_the_reason() -> None:
    for reason in Interrupt:
        [job, _] = Running().items
        assert not Current(job).cancelled
        job.interrupt(reason)
        assert Current(job).cancelled


def test_what_has_ended_is_interrupted_no_more() -> None:
    running = Running()
    for each in (running.batch, *running.items):
        each.ended = True
    for event in ("lose 1", "cancel 1", "limit 1"):
        running.happens(event)
    assert running.told == 0 and not running.batch.interrupts and not running.items[0].interrupts


def test_what_was_cancelled_before_it_came_does_not_begin() -> None:
    running = Running()
    running.interrupts.begin(running.batch, {1}.__contains__)
    assert not running.batch.interrupts and running.items[0].interrupts == {Interrupt.CANCELLED}
    running.interrupts.begin(running.batch, {1, 2}.__contains__)
    assert running.batch.interrupts == {Interrupt.CANCELLED}


@pytest.mark.parametrize("retry", [None, Retry(), Retry(never=(ValueError,))])
@pytest.mark.parametrize("error", [ValueError("x"), RateLimited(retry_after=7), Bury("b"), Snooze(5)])
def test_one_error_of_a_whole_batch_is_that_of_each_item(error: Exception, retry: Retry | None) -> None:
    attempts = [1, 3, 2]
    expected = [decide(error, retry=retry, attempt=attempt, chance=0.5) for attempt in attempts]
    assert decide_each(error, retry=retry, attempts=attempts, jitter=lambda: 0.5) == expected
