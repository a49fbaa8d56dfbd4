"""Exactly one message for each tick: the leader's own transactions, on real stores, while leaders come, die and answers
get lost.
"""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from stores import LIMITS, NODES, NUMBER, SECOND, World

from mqueue.broker import failpoints
from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.scheduler import SCHEDULES_MAX, Scheduler
from mqueue.broker.faults import Deposed, StoreLost
from mqueue.broker.format import record
from mqueue.broker.shard import Shard
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.leader.store import LeaderStore
from mqueue.broker.store.leader.ticks import Ticked
from mqueue.broker.store.queries import sql
from mqueue.broker.store.schedules import ScheduleStore
from mqueue.broker.wal.ids import IdSource
from mqueue.clock import SystemClock
from mqueue.message import BATCH_MAX
from mqueue.schedule import PAYLOAD_MAX, CatchUp, Schedule, moment, next_after

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


class LostAnswer(LeaderSession):
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
        self.session = LostAnswer(world.store, world.connection)
        store = LeaderStore(self.session)
        world.term = await store.raise_term(0, node)
        shard = Shard(NUMBER, node, world.cache, world.store, world.brokers[node].shard.log, self.clock, world.metrics, start=0)
        shard.clocks.saw(0, world.lead.shard.now_us(), self.clock.monotonic())
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
    return s._replace(**({"next_at_us": next_after(s.spec, BEGIN_US)} | more))


def put(world: World, *schedules: Schedule) -> None:
    async def put_all() -> None:
        for s in schedules:
            async with ScheduleStore(world.store).editing(s.namespace) as editing:
                await editing.change(s.name, lambda known, s=s: s)

    world.run(put_all())


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


def test_a_leader_whose_wall_clock_is_behind_stops_no_schedule(world: World, leaders: Leaders) -> None:
    """The shard clock and PostgreSQL's say that the ticks have come."""
    put(world, made("minutely", every_s=60))
    lead, until = leaders.leads[-1], BEGIN_US + 10 * MINUTE
    leaders.clock.now_us = BEGIN_US - 60 * MINUTE
    lead.shard.clocks.saw(0, until, leaders.clock.monotonic())
    assert world.run(leaders.turn(lead)) == 10
    assert enqueued(world) == expected([made("minutely", every_s=60)], until)


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
                leaders.session.loses = True
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


def test_a_tick_brings_what_its_schedule_says_and_is_delivered(world: World, leaders: Leaders) -> None:
    s = made("a", every_s=60, payload=b"call", metadata='{"a": [1, 2.50]}', priority=-2, max_retries=7, lease_ms=4_000)
    put(world, s, made("expires", every_s=60, ttl_us=SECOND))
    leaders.clock.now_us += MINUTE

    async def delivered() -> list[Any]:
        lead = leaders.leads[-1]
        assert await leaders.turn(lead) == 2
        await world.cache.lead(lead.term, lead.shared.token, LIMITS)
        await world.prefetcher.scan(lead)
        await world.prefetcher.refill(lead, ["n/ticks"])
        await world.prefetcher.arrivals(lead)
        got = await world.cache.fetch(world.lead.epoch, NODES[0], ["n/ticks"], 10, 1000, False)
        return [(record.unpack(data), record.open_body(body)) for data, body in zip(got.records, got.bodies, strict=True)]

    (first, body), (second, _) = world.run(delivered())
    assert (first.priority, first.max_retries, first.lease_ms, first.expires) == (-2, 7, 4_000, 0)
    assert (second.max_retries, second.lease_ms, second.expires - second.due) == (3, 30_000, SECOND)
    assert body.payload == b"call"
    assert body.metadata == b'{"schedule": "a", "tick": "2024-03-30T22:01:00Z", "a": [1, 2.50]}'


def test_what_was_missed_is_dropped_without_a_message(world: World, leaders: Leaders) -> None:
    put(world, made("skip", every_s=60, catch_up="skip"), made("one", every_s=60, catch_up="one"), made("paused", every_s=60, paused=True))
    leaders.clock.now_us += 100 * MINUTE + 40 * SECOND
    assert world.run(leaders.turn(leaders.leads[-1])) == 1
    assert enqueued(world) == {("one", "2024-03-30T23:40:00Z"): 1}
    assert world.run(leaders.turn(leaders.leads[-1])) == 0
    leaders.clock.now_us += 20 * SECOND
    assert world.run(leaders.turn(leaders.leads[-1])) == 2


def test_one_transaction_is_bounded_and_the_rest_comes_next(world: World, leaders: Leaders) -> None:
    put(world, made("small", every_s=1), *(made(f"large{n}", every_s=10, payload=bytes(PAYLOAD_MAX)) for n in range(2)))
    leaders.clock.now_us += 2_500 * SECOND
    sizes: list[int] = []

    async def counted() -> None:
        real = leaders.schedulers[0]._round

        async def round(*args: Any) -> list[Ticked]:
            ticked = await real(*args)
            sizes.append(sum(len(t.rows) for t in ticked))
            return ticked

        leaders.schedulers[0]._round = round  # type: ignore[method-assign]
        while await leaders.turn(leaders.leads[-1]):
            pass

    world.run(counted())
    assert sum(sizes) == 2_500 + 2 * 250
    assert max(sizes) <= BATCH_MAX
    large = world.run(world.run(world.connection.execute("SELECT count(*) FROM message WHERE octet_length(payload) > 2")).fetchone())
    assert large == (500,)


def test_one_that_is_being_edited_is_left_for_the_next_look(world: World, leaders: Leaders) -> None:
    put(world, made("a", every_s=60), made("b", every_s=60))
    leaders.clock.now_us += MINUTE

    async def looked() -> tuple[int, int]:
        async with world.store.transaction() as connection:
            await connection.execute(sql("schedule"), {"namespace": "n", "name": "a"})
            first = await leaders.turn(leaders.leads[-1])
        return first, await leaders.turn(leaders.leads[-1])

    assert world.run(looked()) == (1, 1)


def test_a_clock_that_is_ahead_of_postgres_starts_nothing(world: World, leaders: Leaders) -> None:
    now_us = SystemClock().wall_us()
    put(world, made("a", every_s=60, next_at_us=now_us + 3_600 * SECOND))
    leaders.clock.now_us = now_us + 7_200 * SECOND
    assert world.run(leaders.turn(leaders.leads[-1])) == 0


def test_a_schedule_whose_zone_its_leader_does_not_know_holds_up_nothing(world: World, leaders: Leaders) -> None:
    put(world, *(made(f"lost-{n}", "0 0 1 1 *", next_at_us=BEGIN_US, timezone="Mars/Olympus") for n in range(SCHEDULES_MAX)))
    put(world, made("lost", "* * * * *", next_at_us=BEGIN_US, timezone="Mars/Olympus"), made("good", every_s=60))
    leaders.clock.now_us += 5 * MINUTE
    for _ in range(2):  # however many they are
        world.run(leaders.turn(leaders.leads[-1]))
    assert enqueued(world) == expected([made("good", every_s=60)], leaders.clock.now_us)
    put(world, made("lost", "* * * * *", next_at_us=BEGIN_US))  # the next leader knows it: nothing has been lost
    world.run(leaders.turn(leaders.leads[-1]))
    assert sum(count for (name, _), count in enqueued(world).items() if name == "lost") == 6
