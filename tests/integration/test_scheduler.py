"""Exactly one message for each tick: the leader's own transactions, on real stores, while leaders come, die and answers get lost."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from stores import NODES, NUMBER, SECOND, World

from mqueue.broker import failpoints
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.faults import Deposed, StoreLost
from mqueue.broker.shard import Shard
from mqueue.broker.store.leader import LeaderStore
from mqueue.broker.store.schedules import ScheduleStore
from mqueue.broker.wal.ids import IdSource
from mqueue.clock import SystemClock
from mqueue.schedule import CatchUp, Schedule, moment, next_after

BEGIN_US = 1_711_836_000 * SECOND  # 2024-03-30T22:00Z: the clock in Berlin leaps in three hours
MINUTE = 60 * SECOND
POINTS = ("schedule.before_insert", "schedule.before_commit", "schedule.after_commit")


class VirtualClock(SystemClock):
    now_us = BEGIN_US

    def wall_us(self) -> int:
        return self.now_us


@dataclass
class Floor:
    id_floor_ms: int = 1 << 40

    def reserve_ids(self, until_ms: int) -> None:
        self.id_floor_ms = until_ms


class LostAnswer(LeaderStore):
    """The answer to its next COMMIT gets lost, where it is told so."""

    loses = False

    @asynccontextmanager
    async def fenced(self, epoch: int, term: int, *, moves: bool = False) -> Any:
        async with super().fenced(epoch, term, moves=moves) as flushed:
            yield flushed
        if self.loses:
            self.loses = False
            raise StoreLost("the answer is lost")


class Leaders:
    """Brokers that lead one after the other, or think that they still do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = VirtualClock()
        self.leads: list[Lead] = []
        self.schedulers = [Scheduler(IdSource(node, Floor(), SystemClock()), lease_s=30, max_retries=3) for node in NODES]

    async def elect(self) -> None:
        """The term is raised; the last leader does not know yet."""
        world, n = self.world, len(self.leads)
        node = NODES[n % 2]
        store = LostAnswer(world.store, world.connection)
        world.term = await store.raise_term(0, node)
        shard = Shard(NUMBER, node, world.cache, world.store, world.brokers[node].shard.log, self.clock, world.metrics, start=0)
        shard.saw_clock(0, world.lead.shard.now_us(), self.clock.monotonic())
        self.leads.append(Lead(shard, store, world.term, world.lead.epoch))

    async def turn(self, lead: Lead, *, announce: bool = True) -> int:
        return await self.schedulers[lead.shard.node - 1].enqueue_due(lead, lead.shard.now_us(), announce=announce)


@pytest.fixture
def leaders(world: World) -> Iterator[Leaders]:
    world.run(world.fresh())
    leaders = Leaders(world)
    world.run(leaders.elect())
    yield leaders
    failpoints.load("")
    world.run(world.connection.execute("DELETE FROM schedule"))
    world.run(world.fresh())


def made(name: str, cron: str | None = None, every_s: int = 0, catch_up: CatchUp = "all", **more: Any) -> Schedule:
    anchor = BEGIN_US if every_s else 0
    s = Schedule(
        "n", name, "ticks", cron, "Europe/Berlin", every_s * SECOND, anchor, catch_up, b"{}", None, 0, None, None, None, False, None, None, None
    )
    return s._replace(next_at_us=next_after(s.spec, BEGIN_US), **more)


def put(world: World, *schedules: Schedule) -> None:
    for s in schedules:
        world.run(ScheduleStore(world.store).edit(s.namespace, s.name, lambda known, s=s: s))


def enqueued(world: World) -> Counter[tuple[str, str]]:
    rows = world.run(world.connection.execute("SELECT metadata FROM message"))
    return Counter((m["schedule"], m["tick"]) for (m,) in world.run(rows.fetchall()))


def expected(schedules: list[Schedule], until_us: int) -> Counter[tuple[str, str]]:
    """Every tick once."""
    ticks: Counter[tuple[str, str]] = Counter()
    for s in schedules:
        tick = s.next_at_us
        while tick is not None and tick <= until_us:
            ticks[s.name, moment(tick).isoformat().replace("+00:00", "Z")] += 1
            tick = next_after(s.spec, tick)
    return ticks


@pytest.mark.parametrize(("announce", "minutes", "least"), [(True, 460, 10_000), (False, 60, 1_200)], ids=["hot", "cold"])
def test_ten_thousand_ticks_come_once_each(world: World, leaders: Leaders, announce: bool, minutes: int, least: int) -> None:
    """Leaders are replaced amid a tick, at each failpoint, and by a lost answer; those that were replaced try again."""
    rng = random.Random(7)
    schedules = [made(f"e{n}", every_s=n) for n in (7, 11, 13, 30, 61)] + [made("cron", "*/2 * * * *"), made("night", "30 2 * * *")]
    put(world, *schedules)
    faults: Counter[str] = Counter()

    async def turn() -> None:
        lead = leaders.leads[-1]
        fault = rng.choice([*POINTS, "lost", "deposed", "stale", "", "", ""])
        faults[fault] += 1
        try:
            if fault in POINTS:
                failpoints.load(f"{fault}=error@1")
            elif fault == "lost":
                lead.store.loses = True  # type: ignore[attr-defined]
            elif fault == "deposed":
                await leaders.elect()
            elif fault == "stale" and len(leaders.leads) > 1:
                lead = leaders.leads[-2]
            await leaders.turn(lead, announce=announce)
        except (OSError, StoreLost, Deposed):
            await leaders.elect()
        finally:
            failpoints.load("")

    async def run() -> None:
        while leaders.clock.now_us < until:
            leaders.clock.now_us += rng.choice([-20, 3, 10, 60, 300]) * SECOND
            await turn()
        while await leaders.turn(leaders.leads[-1], announce=announce):
            pass

    until = BEGIN_US + minutes * MINUTE
    world.run(run())
    ticks = enqueued(world)
    assert ticks == expected(schedules, max(until, leaders.clock.now_us))
    print(f"{sum(ticks.values())} ticks, {len(leaders.leads)} leaders, {dict(faults)}")
    assert len(ticks) > least
    assert all(faults[point] > 1 for point in (*POINTS, "lost", "deposed", "stale"))
    assert world.run(world.ledger())["enqueued"] == len(ticks)
    arrivals = world.run(world.run(world.connection.execute("SELECT count(*) FROM arrival")).fetchone())
    assert arrivals == (len(ticks) if announce else 0,)
