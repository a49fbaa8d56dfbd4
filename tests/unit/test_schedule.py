"""When a schedule is due: daylight saving, leap days, intervals, and what becomes of missed ticks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqueue.schedule import MISSED_US, SECOND_US, BadSchedule, CatchUp, Spec, check, due, moment, next_after

MINUTE = 60 * SECOND_US
DAY = 24 * 60 * MINUTE
BERLIN = "Europe/Berlin"
NOW = 1_780_000_000 * SECOND_US


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def ticks(cron: str, timezone: str, begin: str, end: str) -> list[str]:
    """In UTC, after `begin`, up to `end`."""
    spec, found, last = Spec(cron, timezone), [], us(begin)
    while (tick := next_after(spec, last)) is not None and tick <= us(end):
        found.append(moment(tick).strftime("%d %H:%M"))
        last = tick
    return found


@pytest.mark.parametrize(
    ("cron", "zone", "begin", "end", "expected"),
    [
        # the clock leaps from 02:00 to 03:00 on March 29, 2026
        ("30 2 * * *", BERLIN, "2026-03-27T12:00Z", "2026-03-31T00:00Z", ["28 01:30", "29 01:00", "30 00:30"]),
        ("0 3 * * *", BERLIN, "2026-03-28T12:00Z", "2026-03-30T12:00Z", ["29 01:00", "30 01:00"]),
        ("*/30 * * * *", BERLIN, "2026-03-29T00:00Z", "2026-03-29T02:00Z", ["29 00:30", "29 01:00", "29 01:30", "29 02:00"]),
        # it shows 02:00 to 03:00 twice on October 25, 2026
        ("30 2 * * *", BERLIN, "2026-10-24T12:00Z", "2026-10-26T12:00Z", ["25 00:30", "26 01:30"]),
        ("30 2 * * *", BERLIN, "2026-10-25T01:15Z", "2026-10-26T12:00Z", ["26 01:30"]),
        ("*/30 * * * *", BERLIN, "2026-10-25T00:00Z", "2026-10-25T02:00Z", ["25 00:30", "25 01:00", "25 01:30", "25 02:00"]),
        ("0-59 2 * * *", BERLIN, "2026-10-25T01:00Z", "2026-10-26T01:01Z", ["26 01:00", "26 01:01"]),
        ("0 9 * * MON-FRI", "America/New_York", "2026-11-26T00:00Z", "2026-12-01T00:00Z", ["26 14:00", "27 14:00", "30 14:00"]),
        ("0 0 29 2 *", "UTC", "2024-03-01T00:00Z", "2033-01-01T00:00Z", ["29 00:00", "29 00:00"]),
        ("0 0 L * *", "UTC", "2028-02-01T00:00Z", "2028-04-01T00:00Z", ["29 00:00", "31 00:00"]),
    ],
)
def test_cron(cron: str, zone: str, begin: str, end: str, expected: list[str]) -> None:
    assert ticks(cron, zone, begin, end) == expected


def test_an_interval_is_counted_from_its_anchor_and_does_not_drift() -> None:
    spec = Spec(every_us=7 * SECOND_US, anchor_us=NOW)
    assert next_after(spec, NOW - DAY) == next_after(spec, NOW) == next_after(spec, NOW + 7 * SECOND_US - 1) == NOW + 7 * SECOND_US
    late = due(spec, "all", NOW + 7 * SECOND_US, NOW + 16 * SECOND_US, 10)  # looked at late: the next ones come where they were
    assert late == ([NOW + 7 * SECOND_US, NOW + 14 * SECOND_US], NOW + 21 * SECOND_US)


@pytest.mark.parametrize("spec", [Spec("* * * * *"), Spec(every_us=MINUTE, anchor_us=NOW // MINUTE * MINUTE)])
@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
def test_what_is_a_little_late_comes_whatever_the_policy(spec: Spec, catch_up: CatchUp) -> None:
    tick = next_after(spec, NOW)
    assert tick is not None
    assert due(spec, catch_up, tick, tick - 1, 10) == ([], tick)
    assert due(spec, catch_up, tick, tick, 10) == ([tick], tick + MINUTE)
    assert due(spec, catch_up, tick, tick + MISSED_US, 10) == ([tick], tick + MINUTE)


def test_what_was_missed_comes_by_the_policy() -> None:
    spec = Spec("0 * * * *")
    tick = us("2026-06-01T10:00Z")
    now = us("2026-06-01T15:20Z")
    after = us("2026-06-01T16:00Z")
    assert due(spec, "skip", tick, now, 10) == ([], after)
    assert due(spec, "one", tick, now, 10) == ([us("2026-06-01T15:00Z")], after)
    assert due(spec, "all", tick, now, 3) == ([tick, tick + 60 * MINUTE, tick + 120 * MINUTE], tick + 180 * MINUTE)
    assert len(due(spec, "all", tick + 180 * MINUTE, now, 10).ticks) == 3
    on_time = us("2026-06-01T15:00:20Z")  # one that is on time stands for those missed
    assert due(spec, "skip", tick, on_time, 10) == due(spec, "one", tick, on_time, 10) == ([us("2026-06-01T15:00Z")], after)


def test_a_year_of_missed_minutes_is_not_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from mqueue import schedule

    asked: list[int] = []
    real = schedule.next_after

    def counted(spec: Spec, after_us: int) -> int | None:
        asked.append(after_us)
        return real(spec, after_us)

    monkeypatch.setattr(schedule, "next_after", counted)
    now = NOW // MINUTE * MINUTE + 59 * SECOND_US
    for cron in ("* * * * *", "0 0 * * *", "* 3 * 1 *", "0 0 29 2 *"):
        first = next_after(Spec(cron, BERLIN), now - 400 * DAY)
        assert first is not None
        assert len(due(Spec(cron, BERLIN), "one", first, now, 10).ticks) == (first < now)
    assert len(asked) < 300


@given(
    spec=st.sampled_from(
        [Spec("*/7 * * * *", BERLIN), Spec("30 2 * * *", BERLIN), Spec("0 */5 * * MON", BERLIN), Spec(every_us=91 * SECOND_US)]
    ),
    looks=st.lists(st.integers(-3_600, 8 * 3_600), min_size=1, max_size=30),
    limit=st.integers(1, 5),
)
def test_each_tick_comes_once_however_the_clock_jumps(spec: Spec, looks: list[int], limit: int) -> None:
    now = us("2026-10-24T20:00Z")
    begin = next_us = next_after(spec, now) or 0
    sent: list[int] = []
    for step in looks:
        now += step * SECOND_US
        told = due(spec, "all", next_us, now, limit)
        assert all(tick <= now for tick in told.ticks)
        sent += told.ticks
        next_us = told.next_us or 0
    expected = [begin]
    while len(expected) <= len(sent):
        expected.append(next_after(spec, expected[-1]) or 0)
    assert [*sent, next_us] == expected


@pytest.mark.parametrize(
    ("cron", "zone", "every", "field"),
    [
        (None, "UTC", None, "every"),
        ("* * * * *", "UTC", 5.0, "cron"),
        ("* * * *", "UTC", None, "cron"),
        ("0 * * * * *", "UTC", None, "cron"),
        ("@daily", "UTC", None, "cron"),
        ("61 * * * *", "UTC", None, "cron"),
        ("*/0 * * * *", "UTC", None, "cron"),
        ("0 0 31 2 *", "UTC", None, "cron"),
        ("0 0 * * 1#9", "UTC", None, "cron"),
        ("0 0 * * L", "UTC", None, "cron"),
        ("1," * 200 + "1 * * * *", "UTC", None, "cron"),
        ("* * * * *", "Mars/Olympus", None, "timezone"),
        ("* * * * *", "America", None, "timezone"),
        ("* * * * *", "../../etc/passwd", None, "timezone"),
        ("* * * * *", "/etc/localtime", None, "timezone"),
        ("* * * * *", "", None, "timezone"),
        ("* * * * *", "x" * 500, None, "timezone"),
        (None, "UTC", 0.5, "every"),
        (None, "UTC", float("nan"), "every"),
        (None, "UTC", float("inf"), "every"),
    ],
)
def test_what_is_no_schedule_is_refused(cron: str | None, zone: str, every: float | None, field: str) -> None:
    with pytest.raises(BadSchedule) as caught:
        check(cron, zone, every)
    assert caught.value.field == field


@pytest.mark.parametrize("cron", ["*/5 * * * *", "0 9 * * MON-FRI", "0 0 L * *", "0 0 LW * *", "15,45 8-18 * JAN-NOV 1-5", "0 0 * * FRI#2"])
def test_what_is_one_is_not(cron: str) -> None:
    check(cron, BERLIN, None)
    check(None, "UTC", 1)
