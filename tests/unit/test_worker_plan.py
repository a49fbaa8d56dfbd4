"""Which poll goes out next, by plain values: no loop, no broker, no time that passes."""

import math

import pytest

from mqueue import wire
from mqueue.worker.polling.lane import Lane
from mqueue.worker.polling.pause import Pause
from mqueue.worker.polling.plan import (
    COLLECT_S,
    QUICK_MAX,
    REST_S,
    RETRY_WAIT_S,
    WAIT_S,
    WAIT_SHARED_S,
    Fetch,
    Slots,
    next_fetch,
    next_look,
    next_wait,
    quick_due,
    rest_s,
)
from mqueue.worker.polling.settles import End, Settles

NOW = 100.0
LATER, EARLIER = NOW + 1, NOW - 1
FAILED = Pause(failed=1, until=LATER)


def lane(name: str = "a", **state: object) -> Lane:
    return Lane("default", [name], **state)  # type: ignore[arg-type]


def settles(number: int) -> Settles:
    made = Settles()
    for id in range(number):
        made.add(End(wire.PollSettle(id=id, topic="t", receipt="1-1", kind="ack"), None))
    return made


def due(slots: Slots, lanes: list[Lane], ended: int = 0, *, quick: int = 0, collect_until: float = LATER) -> bool:
    return quick_due(NOW, slots, lanes, settles(ended), quick, collect_until)


# ── slots ──


@pytest.mark.parametrize(
    ("slots", "unsettled", "free"),
    [
        (Slots(20), 0, 20),
        (Slots(20, running=5, asked=3), 0, 12),
        (Slots(20, running=20), 20, 0),
        (Slots(20, running=5), 20, 15),  # as many settles as slots are no pile
        (Slots(20, running=5), 30, 5),
        (Slots(20), 60, 0),
        (Slots(20, closed=True), 0, 0),
    ],
)
def test_free_slots(slots: Slots, unsettled: int, free: int) -> None:
    assert slots.free(unsettled) == free


# ── quick polls ──


def test_a_quick_poll_settles_when_a_quarter_has_ended_or_nothing_runs_or_it_has_waited() -> None:
    busy, full = lane(waiting=True), Slots(20, running=20)
    assert not due(full, [busy], 0)
    assert not due(full, [busy], 4) and due(full, [busy], 5)
    assert due(Slots(20), [busy], 1)
    assert due(full, [busy], 1, collect_until=NOW)
    assert due(Slots(20, running=20, closed=True), [busy], 1)
    assert not due(full, [busy], 20, quick=QUICK_MAX)


def test_a_quick_poll_fetches_for_a_hungry_lane_with_a_quarter_free_or_one_that_has_rested() -> None:
    assert due(Slots(20), [lane(hungry=True, rest_until=LATER)])
    assert not due(Slots(20, running=16), [lane(hungry=True, rest_until=LATER)])
    assert due(Slots(20, running=16), [lane(hungry=True, rest_until=NOW)])
    assert not due(Slots(20), [lane()]), "a lane that gave less has a poll that waits"
    assert not due(Slots(20), [lane(hungry=True, pause=FAILED)])
    assert not due(Slots(20), [lane(hungry=True, asked=1)])
    assert not due(Slots(20, asked=20), [lane(hungry=True)])


def test_the_hungry_lanes_share_what_is_free_and_take_turns() -> None:
    first, hungry, other = lane("a"), lane("b", hungry=True), lane("c", hungry=True)
    assert next_fetch(9, [first, hungry, other]) == Fetch(hungry, 4)
    assert next_fetch(9, [first]) == Fetch(first, 9)
    assert next_fetch(1, [hungry, other]) == Fetch(hungry, 1)
    assert next_fetch(5000, [hungry]) == Fetch(hungry, 1000)
    assert next_fetch(0, [hungry]) is None


def test_a_batch_is_asked_for_whole_and_once() -> None:
    batch = lane(batch=100, hungry=True)
    assert next_fetch(1, [batch]) == Fetch(batch, 100)
    assert next_fetch(1, [lane(batch=100, asked=1)]) is None
    assert next_fetch(1, [lane(batch=100, filling=True)]) is None


@pytest.mark.parametrize("state", [{"waiting": True}, {"pause": FAILED}])
def test_a_lane_that_waits_or_has_failed_is_left_out(state: dict[str, object]) -> None:
    other = lane("b")
    assert next_fetch(8, [lane(**state), other]) == Fetch(other, 8)
    assert next_fetch(8, [lane(**state)]) is None


# ── waiting polls ──


def test_one_lane_waits_for_all_that_is_free() -> None:
    only = lane()
    assert next_wait(NOW, 12, Slots(20), [only]) == Fetch(only, 12, WAIT_S)
    assert next_wait(NOW, 0, Slots(20), [only]) is None


def test_of_several_lanes_each_waits_for_its_share_and_one_share_is_left() -> None:
    lanes = [lane("a"), lane("b"), lane("c", waiting=True)]
    assert next_wait(NOW, 12, Slots(20), lanes) == Fetch(lanes[0], 4, WAIT_S)
    lanes[0].waiting = True
    assert next_wait(NOW, 8, Slots(20), lanes) == Fetch(lanes[1], 4, WAIT_S)


def test_more_lanes_than_slots_take_short_turns() -> None:
    lanes = [lane(name) for name in "abc"]
    assert next_wait(NOW, 3, Slots(3), lanes) == Fetch(lanes[0], 1, WAIT_SHARED_S)


def test_after_a_failure_a_poll_waits_shortly() -> None:
    failed = lane(pause=Pause(failed=2, until=EARLIER))
    assert next_wait(NOW, 4, Slots(4), [failed]) == Fetch(failed, 4, RETRY_WAIT_S)


@pytest.mark.parametrize("state", [{"hungry": True}, {"asked": 1}, {"filling": True}, {"rest_until": LATER}, {"pause": FAILED}])
def test_some_lanes_do_not_wait_now(state: dict[str, object]) -> None:
    assert next_wait(NOW, 4, Slots(4), [lane(**state)]) is None


# ── when to look again ──


def look(lanes: list[Lane], ended: int = 0, *, free: int = 4, quick: int = 0) -> float:
    return next_look(NOW, free, lanes, settles(ended), quick, NOW + COLLECT_S)


def test_when_to_look_again() -> None:
    assert look([lane(waiting=True)]) == math.inf
    assert look([lane(waiting=True)], 1) == NOW + COLLECT_S
    assert look([lane(waiting=True)], 1, quick=QUICK_MAX) == math.inf, "one that comes back looks"
    assert look([lane(rest_until=LATER), lane(pause=Pause(1, LATER + 1))]) == LATER
    assert look([lane(rest_until=EARLIER)]) == NOW
    assert look([lane(rest_until=LATER)], free=0) == math.inf
    assert look([lane(hungry=True, rest_until=LATER)], quick=QUICK_MAX) == math.inf


def test_a_lane_rests_longest_after_a_wait_in_vain() -> None:
    assert rest_s(Fetch(lane(), 4, WAIT_S), 0, 1) == REST_S
    assert rest_s(Fetch(lane(), 4, WAIT_S), 1, 1) == rest_s(Fetch(lane(), 4), 0, 1) == COLLECT_S
    assert rest_s(Fetch(lane(), 4), 0, 0) == 0.0
