"""Two brokers under load: the leader killed, frozen, and each in turn cut off from each store; nothing is lost, nothing
doubled.

    python -m tests.campaigns.partition --seconds 20

*cut*: its connections are reset and refused; *stall*: they stay, and not a byte passes. Judged as `mqueue torture` is;
what each broker answered meanwhile is told.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mqueue.torture.history import Fault, History
from mqueue.torture.judge import Verdict, judge
from mqueue.torture.load import LEASE_S, Load
from mqueue.torture.proxy import Proxy
from mqueue.torture.run import details
from mqueue.torture.scene import new_history, staged, under_load
from mqueue.torture.stage import Broker, Stage
from tests.waiting import until

from .campaign import finish, options, table, violations
from .judging.rates import CALLS, answers_told, longest_gap, rate

WORKERS = 12  # they keep up
CALM_S = LEASE_S + 4.0
LEADER_S = 5.0  # a new one, at most
WAIT_S = 300.0  # longer than any harm lasts
PAUSE_S = 10.0
NEVER = float("inf")

Harm = Callable[[Broker, float], Awaitable[None]]  # for so many seconds


@dataclass
class Act:
    """What was done to broker `to`. `leader_s`: until another one led; NEVER: none did."""

    name: str
    to: int
    led: bool
    start: float
    end: float
    settled_s: float  # from the end until all serve again
    leader_s: float


@dataclass
class Found:
    history: History
    acts: list[Act] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    def good(self) -> bool:
        return self.verdict.good() and all(a.leader_s <= LEADER_S for a in self.acts if a.name == "kill -9")


async def kill(broker: Broker, seconds: float) -> None:
    await broker.kill()
    await asyncio.sleep(seconds)
    await broker.start()


async def freeze(broker: Broker, seconds: float) -> None:
    broker.pause()
    await asyncio.sleep(seconds)
    broker.resume()


def on_link(link: Callable[[Broker], Proxy], harm: Callable[[Proxy], None]) -> Harm:
    async def act(broker: Broker, seconds: float) -> None:
        harm(link(broker))
        await asyncio.sleep(seconds)
        link(broker).heal()

    return act


LINKS = {
    "Redis cut": on_link(lambda broker: broker.redis, Proxy.cut),
    "Redis stalled": on_link(lambda broker: broker.redis, Proxy.stall),
    "PostgreSQL cut": on_link(lambda broker: broker.postgres, Proxy.cut),
    "PostgreSQL stalled": on_link(lambda broker: broker.postgres, Proxy.stall),
}


async def run(
    seconds: float,
    links: Sequence[str] = tuple(LINKS),
    pause_s: float = PAUSE_S,
    seed: int = 1,
    calm_s: float = CALM_S,
    kill_s: float = LEADER_S,
    leads: Sequence[bool] = (True, False),
) -> Found:
    """The leader is killed and frozen; each of `links` is harmed for `seconds`, first the leader's, then that of one
    that does not lead.
    """
    found = Found(new_history())
    async with (
        staged(lambda urls, token: Load(found.history, urls, token, seed), shards=1) as (stage, load),
        under_load(stage, load, workers=WORKERS),
    ):
        await asyncio.sleep(calm_s)
        await _act(stage, found, "kill -9", kill, kill_s, True)
        await asyncio.sleep(calm_s)
        if pause_s:
            await _act(stage, found, "SIGSTOP", freeze, pause_s, True)
            await asyncio.sleep(calm_s)
        for led in leads:
            for name in links:
                await _act(stage, found, name, LINKS[name], seconds, led)
                await asyncio.sleep(calm_s)
    found.verdict = judge(found.history)
    return found


async def _act(stage: Stage, found: Found, name: str, harm: Harm, seconds: float, led: bool) -> None:
    leader = await stage.leader()
    [other] = [broker for broker in stage.brokers if broker is not leader]
    broker, watched = (leader, other) if led else (other, leader)
    start = time.monotonic()
    watching = asyncio.create_task(_until_leads(stage, watched))
    await harm(broker, seconds)
    end = time.monotonic()
    leader_s = watching.result() if watching.done() else NEVER
    watching.cancel()
    await stage.settled()
    settled = time.monotonic()
    # what its clients gave up on it does when it is back: what it leases then comes back with the lease
    found.history.faults.append(Fault(name, start, settled + LEASE_S, False, frozenset({broker.number})))
    found.acts.append(Act(name, broker.number, led, start, end, settled - end, leader_s))


async def _until_leads(stage: Stage, broker: Broker) -> float:
    """Waits for it; returns how many seconds it took."""
    began = time.monotonic()
    await until(lambda: stage.metric(broker, "mqueue_leader"), "another leads", WAIT_S, enough=lambda leads: leads == 1)
    return time.monotonic() - began


def report(found: Found) -> list[str]:
    answers, lines = found.history.answers, []
    for a in found.acts:
        lines.append(f"{a.name}, {a.end - a.start:.1f} s: broker {a.to}, which {'led' if a.led else 'did not lead'}")
        if a.led:
            lines.append(f"  another leads after {'never' if a.leader_s == NEVER else f'{a.leader_s:.1f} s'}")
        rates = ", ".join(f"{call} {rate(answers, call, a.start, a.end):.0f}" for call in CALLS)
        gaps = ", ".join(f"{call} {longest_gap(answers, call, 1 - a.to, a.start, a.end):.1f}" for call in CALLS)
        lines.append(f"  messages a second: {rates}; longest time without an ok of broker {1 - a.to}, s: {gaps}")
        lines.append(f"  all serve again {a.settled_s:.1f} s after its end")
        lines += answers_told(answers, a.start, a.end)
    lines.append(f"fetches whose order was judged: {found.verdict.judged:,} of {len(found.history.fetches):,}")
    return lines + table(violations(found.verdict))


def main() -> int:
    given = options(__doc__, seconds=20.0, seed=1)
    found = asyncio.run(run(given.seconds, seed=given.seed))
    claim = f"a new leader within {LEADER_S:g} s of a kill, nothing lost, nothing doubled"
    return finish(found.good(), report(found), claim, details(found.verdict, found.history))


if __name__ == "__main__":
    raise SystemExit(main())
