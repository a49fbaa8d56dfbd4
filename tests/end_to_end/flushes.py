"""FLUSHALL every 200 ms under load, the brokers alive: nothing is lost, acks stick, and afterwards all is in order and as fast as before.

    python -m tests.end_to_end.flushes --seconds 60

Judged as `mqueue torture` is. A broker that missed an epoch's barrier, as its log tells, may let its unflushed acks come back.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass, field

from mqueue.torture.history import Fault, History
from mqueue.torture.judge import Verdict, judge
from mqueue.torture.load import Load
from mqueue.torture.run import details
from mqueue.torture.scene import new_history, staged, under_load
from mqueue.torture.stage import Stage

from .rates import back_after, rate, said, told

EVERY_S = 0.2
BACK_S = 10.0  # after the end
SHARE = 0.95
WINDOW_S = 3.0  # over which a rate is taken
PRODUCERS, WORKERS = 2, 16  # the workers keep up: what is measured is not how a backlog grows
CALLS = ("enqueue", "fetch", "ack")


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
    async with staged(lambda urls, token: Load(found.history, urls, token, seed)) as (stage, load):
        async with under_load(stage, load, PRODUCERS, WORKERS):
            await asyncio.sleep(1.0 + calm_s)
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
    rows |= {name.replace("_", " "): count for name, count in found.verdict.bad().items()}
    lines = [f"{name:48}{value!s:>10}" for name, value in rows.items()]
    lines += ["answered meanwhile:"]
    lines += [f"  {call:8} broker {broker}: {said(counter)}" for (call, broker), counter in told(answers, found.start, found.end).items()]
    return lines


def recovered(found: Flushed, calm_s: float) -> bool:
    """Is every rate back within BACK_S? There must have been one."""
    if not all(found.former(call, calm_s) > 0 for call in CALLS):
        return False
    until = found.end + min(BACK_S + WINDOW_S, calm_s)
    return all(
        back_after(found.history.answers, call, found.end, until, SHARE * found.former(call, calm_s), WINDOW_S) is not None for call in CALLS
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calm", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = asyncio.run(run(given.seconds, given.calm, given.seed))
    print("\n".join(report(found, given.calm)))
    good = found.verdict.good() and found.epochs > 2 and recovered(found, given.calm)
    print("judged:", "good" if good else "NOT good")
    print("\n".join(details(found.verdict, found.history)))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
