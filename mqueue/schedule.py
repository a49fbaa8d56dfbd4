"""A schedule is due by cron, on the wall clock of a time zone, or every so many seconds. The functions are pure: the
time is passed in, in µs since 1970.

A schedule has a *next* tick, the first that nobody has decided on. A tick is *missed* when it is more than MISSED_US
late: until then it counts whatever the policy says, so that a change of leaders drops none. The catch-up policy decides
on those missed: *skip* drops them, *one* keeps the latest unless a later one is on time, *all* keeps each.

Daylight saving is cronsim's, which follows Debian's cron: a fixed time that the clock leaps over runs right after the
gap, one that it shows twice runs the first time; a rule that begins with a star goes by elapsed time.
"""

import json
import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

CatchUp = Literal["skip", "one", "all"]

SECOND_US = 1_000_000
MISSED_US = 30 * SECOND_US
EVERY_MIN_S = 1.0
EVERY_MAX_S = 366 * 86_400.0
PAYLOAD_MAX = 64 * 1024  # bytes
SCHEDULES_MAX = 1_000  # of a namespace, in one shard
OWN_METADATA = frozenset({"schedule", "tick"})  # what a tick adds to the metadata
CRON_MAX = 256  # letters
ZONE_MAX = 64
FIELDS = 5
TRIES_MAX = 2_000  # ticks to skip: in an hour that the clock shows twice many are over already
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ZONE = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*")


class BadSchedule(ValueError):
    """`field` is cron, timezone or every."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


class Spec(NamedTuple):
    """It is a `cron` in a `timezone`, or `every_us` from `anchor_us` on (the first one interval later)."""

    cron: str | None = None
    timezone: str = "UTC"
    every_us: int = 0
    anchor_us: int = 0


class Schedule(NamedTuple):
    """It is a periodic task as it is kept. Times: µs of wall clock. `metadata`: JSON; `max_retries`, `lease_ms` None:
    the broker's defaults.

    `next_at_us`: its next tick; None: there is no other. `declared`: hash of what code declared last.
    """

    namespace: str
    name: str
    topic: str
    cron: str | None
    timezone: str
    every_us: int
    anchor_us: int
    catch_up: CatchUp
    payload: bytes
    metadata: str | None
    priority: int
    max_retries: int | None
    lease_ms: int | None
    ttl_us: int | None
    paused: bool
    next_at_us: int | None
    last_at_us: int | None
    declared: bytes | None

    @property
    def spec(self) -> Spec:
        return Spec(self.cron, self.timezone, self.every_us, self.anchor_us)


class Due(NamedTuple):
    """`ticks` are to be enqueued now, oldest first. `next_us` is the first that is left; None: there is no other."""

    ticks: list[int]
    next_us: int | None


def check(cron: str | None, timezone: str, every: float | None) -> None:
    """Raises BadSchedule for a rule that cannot be. Without cronsim, or a database of time zones, the broker has to
    check what needs them.
    """
    if (cron is None) == (every is None):
        raise BadSchedule("cron" if cron is not None else "every", "give either cron or every")
    if every is not None:
        if not EVERY_MIN_S <= every <= EVERY_MAX_S:
            raise BadSchedule("every", f"{EVERY_MIN_S:g} to {EVERY_MAX_S:.0f} seconds")
        return
    assert cron is not None
    if len(cron) > CRON_MAX or len(cron.split()) != FIELDS:
        raise BadSchedule("cron", "five fields: minute, hour, day of month, month, day of week")
    if not _check_zone(timezone):
        return
    try:
        from cronsim import CronSim, CronSimError
    except ModuleNotFoundError:
        return
    try:
        CronSim(cron, EPOCH)
    except (CronSimError, ValueError, TypeError, AssertionError) as error:
        raise BadSchedule("cron", f"{cron!r} is no time: {str(error) or 'cannot be read'}") from None


def _check_zone(timezone: str) -> bool:
    """Could it be checked? False where no time zone is known here. Raises BadSchedule."""
    try:
        if len(timezone) > ZONE_MAX or not _ZONE.fullmatch(timezone):
            raise ValueError
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        if not zoneinfo.available_timezones():
            return False
        raise BadSchedule("timezone", f"{timezone[:ZONE_MAX]!r} is no time zone: like Europe/Berlin, or UTC") from None
    return True


def next_after(spec: Spec, after_us: int) -> int | None:
    """Returns the first tick past `after_us`; None: there is none within 50 years."""
    if spec.every_us:
        count = max(0, (after_us - spec.anchor_us) // spec.every_us)
        return spec.anchor_us + (count + 1) * spec.every_us
    from cronsim import CronSim

    assert spec.cron is not None
    begin = datetime.fromtimestamp(after_us // SECOND_US, ZoneInfo(spec.timezone))
    for tick in islice(CronSim(spec.cron, begin), TRIES_MAX):
        if (us := int(tick.timestamp()) * SECOND_US) > after_us:
            return us
    return None


def due(spec: Spec, catch_up: CatchUp, next_us: int, now_us: int, limit: int) -> Due:
    """Returns what is to be enqueued at `now_us`, at most `limit` (≥ 1) ticks; the rest is decided at the next look."""
    first: int | None = next_us
    on_time_us = now_us - MISSED_US
    if next_us < on_time_us and catch_up != "all":
        first = next_after(spec, on_time_us - 1)
        if catch_up == "one" and (first is None or first > now_us):
            first = _latest(spec, next_us, on_time_us)
    ticks: list[int] = []
    while first is not None and first <= now_us and len(ticks) < limit:
        ticks.append(first)
        first = next_after(spec, first)
    return Due(ticks, first)


def _latest(spec: Spec, tick_us: int, until_us: int) -> int:
    """Returns the last tick up to `until_us`, from one that is known. It searches by halves, since there may be a
    million between them.
    """
    high = until_us  # the one we look for is not past it
    while (later := next_after(spec, tick_us)) is not None and later <= until_us:
        tick_us, middle = later, (later + high) // 2
        found = next_after(spec, middle)
        if found is not None and found <= until_us:
            tick_us = found
        else:
            high = middle
    return tick_us


def tagged(metadata: str | None, name: str, tick_us: int | None) -> bytes:
    """Returns a message's metadata as JSON: what its schedule gives, the schedule's name, and which tick it is; None:
    somebody asked for it.
    """
    own = {"schedule": name} | ({} if tick_us is None else {"tick": moment(tick_us).isoformat().replace("+00:00", "Z")})
    rest = (metadata or "{}").strip().removeprefix("{").lstrip()
    return f"{json.dumps(own)[:-1]}{'' if rest == '}' else ', '}{rest}".encode()


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)
