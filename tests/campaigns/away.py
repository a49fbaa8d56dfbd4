"""Redis is away for half a minute: enqueue, fetch and settle go on past it, in PostgreSQL, in strict order; then from
Redis again.

    python -m tests.campaigns.away --seconds 30

Every broker's way to Redis is cut. Judged as `mqueue torture` is: nothing lost, acks stick, order strict.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

from mqueue.torture.history import Fault, History
from mqueue.torture.judge import Verdict, judge
from mqueue.torture.run import details
from mqueue.torture.scene import BROKERS, new_history
from mqueue.torture.stage import Stage
from tests.campaigns.load.steady import steady
from tests.waiting import TooLate, until

from .campaign import finish, options, table, violations
from .judging.rates import CALLS, answers_told, longest_gap, rate

COLD_S = 10.0  # within which PostgreSQL serves
GAP_MAX_S = 10.0  # the longest that no call of a kind was answered


@dataclass
class Away:
    """Times: Redis cut, all cold, Redis back, all hot."""

    history: History
    start: float = 0.0
    cold: float = 0.0
    end: float = 0.0
    hot: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)


async def run(seconds: float, calm_s: float, seed: int = 1) -> Away:
    found = Away(new_history())
    async with steady(found.history, calm_s, seed) as stage:
        await _cut(stage, found, seconds)
        await asyncio.sleep(calm_s)
    found.verdict = judge(found.history)
    return found


async def _cut(stage: Stage, found: Away, seconds: float) -> None:
    found.start = time.monotonic()
    for broker in stage.brokers:
        broker.redis.cut()
    with suppress(TooLate):  # when they were cold is judged by `good`
        await until(lambda: all_cold(stage), "all serve from PostgreSQL", seconds)
    found.cold = time.monotonic()
    await asyncio.sleep(max(0.0, found.start + seconds - found.cold))
    # while PostgreSQL serves nothing is uncertain but the changes of the mode
    found.history.faults.append(Fault("redis-away", found.start, found.cold, True, frozenset()))
    found.end = time.monotonic()
    for broker in stage.brokers:
        broker.redis.heal()
    await stage.settled()
    found.hot = time.monotonic()
    found.history.faults.append(Fault("redis-back", found.end, found.hot, True, frozenset()))


async def all_cold(stage: Stage) -> bool:
    return all([await stage.metric(broker, "mqueue_cold") == 1 for broker in stage.brokers])


def gap(found: Away, call: str) -> float:
    """The longest time, over the change and back, in which one of the brokers did no such call."""
    return max(longest_gap(found.history.answers, call, broker, found.start, found.hot) for broker in range(BROKERS))


def report(found: Away, calm_s: float) -> list[str]:
    answers = found.history.answers
    rows: dict[str, object] = {
        "cut to cold, s": f"{found.cold - found.start:.1f}",
        "back to hot, s": f"{found.hot - found.end:.1f}",
    }
    for call in CALLS:
        rows[f"{call}: messages a second before"] = round(rate(answers, call, found.start - calm_s, found.start))
        rows[f"{call}: from PostgreSQL"] = round(rate(answers, call, found.cold, found.end))
        rows[f"{call}: afterwards"] = round(rate(answers, call, found.hot, found.hot + calm_s))
        rows[f"{call}: longest gap, s"] = f"{gap(found, call):.1f}"
    rows["fetches whose order was judged"] = found.verdict.judged
    rows["delivered after an acknowledged ack, allowed"] = len(found.verdict.allowed_after_ack)
    rows |= violations(found.verdict)
    return [*table(rows), "answered from PostgreSQL:", *answers_told(answers, found.cold, found.end)]


def good(found: Away) -> bool:
    served = all(rate(found.history.answers, call, found.cold, found.end) > 0 and gap(found, call) <= GAP_MAX_S for call in CALLS)
    return found.verdict.good() and served and found.cold - found.start <= COLD_S and found.hot - found.end <= COLD_S


def main() -> int:
    given = options(__doc__, seconds=30.0, calm=10.0, seed=1)
    found = asyncio.run(run(given.seconds, given.calm, given.seed))
    claim = f"cold and hot again within {COLD_S:g} s, every call goes on, nothing lost, acks stick, order strict"
    return finish(good(found), report(found, given.calm), claim, details(found.verdict, found.history))


if __name__ == "__main__":
    raise SystemExit(main())
