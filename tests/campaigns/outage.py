"""PostgreSQL away under 2,000 enqueues and 2,000 fetches a second: what is buffered goes on, and all is well soon after
it is back.

    python -m tests.campaigns.outage --seconds 30

Twice: *stopped*, it does not run; *frozen*, no process of it does anything, and every connection stays open. It is back
when it takes connections again. Judged as `mqueue torture` is.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import redis.asyncio as aioredis

from mqueue.broker.cache import keys
from mqueue.torture.history import Fault, History
from mqueue.torture.judge import Verdict, judge
from mqueue.torture.run import details
from mqueue.torture.scene import BROKERS, new_history, staged, under_load
from mqueue.torture.stage import Stage
from tests.campaigns.load.paced import Paced
from tests.processes.frozen import frozen
from tests.waiting import TooLate, until

from .campaign import finish, options, table, violations
from .judging.rates import CALLS, answers_told, back_after, longest_gap, rate

PRODUCERS, WORKERS = 4, 4
WAYS = ("stopped", "frozen")
BACK_S = 5.0
SHARE = 0.95
WINDOW_S = 1.0  # over which a rate is taken
DRAIN_S = 60.0
LOOK_S = 0.02


@dataclass
class Outage:
    """`drained_s`: after it is back, until no more waits for its flush than at the worst moment of the calm."""

    way: str
    start: float
    end: float
    buffered: int
    drained_s: float | None
    former: dict[str, float] = field(default_factory=dict)
    back: dict[str, float | None] = field(default_factory=dict)

    def recovery_s(self) -> float:
        return max(INFINITE if s is None else s for s in (self.drained_s, *self.back.values()))


INFINITE = float("inf")


@dataclass
class Found:
    history: History
    outages: list[Outage] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)


async def run(seconds: float, calm_s: float, pace: float, ways: tuple[str, ...] = WAYS) -> Found:
    found = Found(new_history())
    async with (
        staged(lambda urls, token: Paced(found.history, urls, token, pace, PRODUCERS), shards=1, settings={}) as (stage, load),
        under_load(stage, load, PRODUCERS, WORKERS),
    ):
        await asyncio.sleep(1.0)
        for way in ways:
            found.outages.append(await _outage(stage, found.history, way, seconds, calm_s))
    found.verdict = judge(found.history)
    return found


async def _outage(stage: Stage, history: History, way: str, seconds: float, calm_s: float) -> Outage:
    async with Buffer(stage) as buffer:
        usual = await buffer.most(calm_s)
        start = time.monotonic()
        async with _away(stage, way):
            await asyncio.sleep(start + seconds - time.monotonic())
        end = time.monotonic()
        buffered = await buffer.length()
        drained_s = await buffer.falls_to(usual, DRAIN_S)
        await asyncio.sleep(max(0.0, end + calm_s - time.monotonic()))
    await stage.settled()
    history.faults.append(Fault(f"postgres-{way}", start, end + (drained_s or DRAIN_S), False, frozenset()))
    outage = Outage(way, start, end, buffered, drained_s)
    for call in CALLS:
        outage.former[call] = rate(history.answers, call, start - calm_s, start)
        outage.back[call] = back_after(history.answers, call, end, end + calm_s, SHARE * outage.former[call], WINDOW_S)
    return outage


@asynccontextmanager
async def _away(stage: Stage, way: str) -> AsyncIterator[None]:
    if way == "frozen":
        with frozen(stage.pid("postgresql")):
            yield
    else:
        async with stage.without_postgres():
            yield


class Buffer:
    """The batches in Redis that wait for their flush."""

    def __init__(self, stage: Stage) -> None:
        path, password = stage.urls.redis_addrs[0].removeprefix("unix://"), stage.urls.redis_password
        self._redis = aioredis.Redis(unix_socket_path=path, password=password)

    async def __aenter__(self) -> "Buffer":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def length(self) -> int:
        return int(await self._redis.llen(keys.dirty(0)))

    async def most(self, seconds: float) -> int:
        """The greatest length seen in this time."""
        most, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            most = max(most, await self.length())
            await asyncio.sleep(LOOK_S)
        return most

    async def falls_to(self, length: int, seconds: float) -> float | None:
        """After how many seconds it is no longer than that; None: not within `seconds`."""
        began = time.monotonic()
        try:
            await until(self.length, f"{length} batches wait at most", seconds, enough=lambda seen: seen <= length)
        except TooLate:
            return None
        return time.monotonic() - began


def report(found: Found) -> list[str]:
    answers = found.history.answers
    lines = []
    for o in found.outages:
        lines.append(f"PostgreSQL {o.way} for {o.end - o.start:.1f} s")
        rows: dict[str, object] = {}
        for call in CALLS:
            rows[f"{call}: messages a second before"] = round(o.former[call])
            rows[f"{call}: meanwhile"] = round(rate(answers, call, o.start, o.end))
            rows[f"{call}: longest time without one, s"] = f"{max(longest_gap(answers, call, b, o.start, o.end) for b in range(BROKERS)):.1f}"
            rows[f"{call}: {SHARE:.0%} of before again, s after it is back"] = _seconds(o.back[call])
        rows["batches buffered when it is back"] = o.buffered
        rows["flushed, s after it is back"] = _seconds(o.drained_s)
        rows["recovered, s after it is back"] = _seconds(o.recovery_s())
        lines += [*table(rows, indent="  "), *answers_told(answers, o.start, o.end)]
    return lines + table(violations(found.verdict))


def _seconds(value: float | None) -> str:
    return "never" if value is None or value == INFINITE else f"{value:.1f}"


def good(found: Found) -> bool:
    served = all(o.former[call] > 0 and rate(found.history.answers, call, o.start, o.end) > 0 for o in found.outages for call in CALLS)
    return found.verdict.good() and served and all(o.recovery_s() <= BACK_S for o in found.outages)


def main() -> int:
    given = options(__doc__, seconds=30.0, calm=15.0, rate=2000.0)
    found = asyncio.run(run(given.seconds, given.calm, given.rate))
    claim = f"recovered within {BACK_S:g} s, nothing lost"
    return finish(good(found), report(found), claim, details(found.verdict, found.history))


if __name__ == "__main__":
    raise SystemExit(main())
