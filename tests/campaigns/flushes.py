"""FLUSHALL every 200 ms under load, the brokers alive: nothing is lost, acks stick, and afterwards all is in order and
as fast as before.

    python -m tests.campaigns.flushes --seconds 60

Judged as `mqueue torture` is. A broker that missed an epoch's barrier, as its log tells, may let its unflushed acks
come back.
"""

import asyncio
import time
from dataclasses import dataclass, field

from mqueue.torture.history import Fault, History
from mqueue.torture.judge import Verdict, judge
from mqueue.torture.run import details
from mqueue.torture.scene import new_history
from mqueue.torture.stage import Stage
from tests.campaigns.load.steady import steady

from .campaign import finish, options, table, violations
from .judging.rates import CALLS, answers_told, back_after, rate

EVERY_S = 0.2
BACK_S = 10.0  # after the end
SHARE = 0.95
WINDOW_S = 3.0  # over which a rate is taken


@dataclass
class Flushed:
    """`start` and `end` of the flushes. `late`: replays that came too late for their epoch's barrier."""

    history: History
    flushes: int = 0
    start: float = 0.0
    end: float = 0.0
    epochs: int = 0
    late: int = 0
    verdict: Verdict = field(default_factory=Verdict)

    def former(self, call: str, seconds: float) -> float:
        return rate(self.history.answers, call, self.start - seconds, self.start)


async def run(seconds: float, calm_s: float, seed: int = 1) -> Flushed:
    """`calm_s`: how long the load goes on before and after."""
    found = Flushed(new_history())
    async with steady(found.history, calm_s, seed) as stage:
        await _flush(stage, found, seconds)
        await asyncio.sleep(calm_s)
        found.epochs = int(await stage.metric(stage.brokers[0], "mqueue_epoch") or 0)
        found.late = sum(broker.log.read_text().count('"late": true') for broker in stage.brokers)
    found.verdict = judge(found.history)
    return found


async def _flush(stage: Stage, found: Flushed, seconds: float) -> None:
    found.start = at = time.monotonic()
    while at < found.start + seconds:
        await stage.flush_redis()
        found.flushes += 1
        at += EVERY_S
        await asyncio.sleep(max(0.0, at - time.monotonic()))
    found.end = time.monotonic()
    found.history.faults.append(Fault("redis-flush", found.start, found.end, True, frozenset()))


def report(found: Flushed, calm_s: float) -> list[str]:
    answers = found.history.answers
    rows: dict[str, object] = {"FLUSHALLs": found.flushes, "epochs opened": found.epochs, "replays too late for their barrier": found.late}
    for call in CALLS:
        former = found.former(call, calm_s)
        back = back_after(answers, call, found.end, found.end + calm_s, SHARE * former, WINDOW_S)
        rows[f"{call}: messages a second before"] = round(former)
        rows[f"{call}: meanwhile"] = round(rate(answers, call, found.start, found.end))
        rows[f"{call}: afterwards"] = round(rate(answers, call, found.end + min(BACK_S, calm_s / 2), found.end + calm_s))
        rows[f"{call}: {SHARE:.0%} of before again after, s"] = "never" if back is None else f"{back:.1f}"
    rows["delivered after an acknowledged ack, allowed"] = len(found.verdict.allowed_after_ack)
    rows["fetches whose order was judged"] = found.verdict.judged
    rows |= violations(found.verdict)
    return [*table(rows), "answered meanwhile:", *answers_told(answers, found.start, found.end)]


def recovered(found: Flushed, calm_s: float) -> bool:
    """Is every rate back within BACK_S? There must have been one."""
    if not all(found.former(call, calm_s) > 0 for call in CALLS):
        return False
    until = found.end + min(BACK_S + WINDOW_S, calm_s)
    return all(
        back_after(found.history.answers, call, found.end, until, SHARE * found.former(call, calm_s), WINDOW_S) is not None for call in CALLS
    )


def good(found: Flushed, calm_s: float) -> bool:
    return found.verdict.good() and found.epochs > 2 and recovered(found, calm_s)


def main() -> int:
    given = options(__doc__, seconds=60.0, calm=20.0, seed=1)
    found = asyncio.run(run(given.seconds, given.calm, given.seed))
    claim = f"nothing lost, acks stick, order strict, {SHARE:.0%} of the former rates within {BACK_S:g} s after the end"
    return finish(good(found, given.calm), report(found, given.calm), claim, details(found.verdict, found.history))


if __name__ == "__main__":
    raise SystemExit(main())
