"""The cold path against a simple queue: whatever the ticks, and however quiet the brokers, a message comes after all
that was due before it was enqueued.

Batches, settles and fetches are those of the brokers, on the real SQL; the leader's ticks come when the machine says
so. Each broker has what it knows of the clock from its own calls only, and ids of its own: those of the second are
less, as if its wall clock were behind. MQUEUE_MACHINE_EXAMPLES and MQUEUE_MACHINE_STEPS as for the order machine.
"""

import asyncio
import os
import struct
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from stores import NODES, World

from mqueue.broker.cache.calls import SettleArgs
from mqueue.broker.commit import cold
from mqueue.broker.commit.batch import Batch, Draft, EnqueueRequest, SettleRequest
from mqueue.broker.format import record
from mqueue.broker.shard import COLD
from mqueue.broker.store.cold import ColdStore
from mqueue.broker.wal.ids import IdSource
from mqueue.message import BODY_MAX, Settle

EXAMPLES = int(os.environ.get("MQUEUE_MACHINE_EXAMPLES", "100"))
STEPS = int(os.environ.get("MQUEUE_MACHINE_STEPS", "30"))
TOPIC, LEASE_MS, ALL = "t/a", 3_600_000, 1000
IDS_FROM = {1: 1 << 42, 2: 1 << 40}
MILLISECONDS = st.sampled_from([0, 1, 20, 100, 700, 3_000])


class Ids:
    """Ids of one broker."""

    def __init__(self, first: int) -> None:
        self._next = first

    def take(self, count: int) -> range:
        self._next += count
        return range(self._next - count, self._next)


class ColdMachine(RuleBasedStateMachine):
    world: World

    @initialize()
    def begin(self) -> None:
        world = self.world
        world.run(world.fresh())
        world.time.ahead_s = 0.0
        lead = world.lead
        row = world.run(world.store.row())
        world.run(lead.store.open_cold(lead.epoch, lead.term, row.timeline_now, row.clock_us))
        self.cold = ColdStore(world.store)
        self.ids = {node: Ids(first) for node, first in IDS_FROM.items()}
        self.leased: list[record.Record] = []
        self.ticks_from = row.clock_us - int(world.time.monotonic() * 1e6)
        for node in NODES:
            shard = world.brokers[node].shard
            shard.epoch, shard.mode = lead.epoch, COLD
            shard.clocks.begin_epoch()
            shard.saw_cold_clock(row.clock_us)

    def commit(self, node: int, batch: Batch, done: asyncio.Future[Any]) -> Any:
        async def answered() -> Any:
            await cold.commit(self.world.brokers[node].shard, cast(IdSource, self.ids[node]), batch)
            return await done

        return self.world.run(answered())

    def future(self) -> asyncio.Future[Any]:
        async def made() -> asyncio.Future[Any]:
            return asyncio.get_running_loop().create_future()

        return self.world.run(made())

    def settle(self, node: int, r: record.Record, kind: str, delays: bytes = b"") -> None:
        args = SettleArgs(r.id.to_bytes(8), TOPIC.encode(), kind, r.receipt, b"", delays)
        request = SettleRequest(cast(list[Settle], []), [args], self.future())
        [outcome] = self.commit(node, Batch(settles=[request]), request.done)
        assert outcome.verdict == b"o"

    def fetch(self, node: int, limit: int = ALL) -> list[record.Record]:
        shard = self.world.brokers[node].shard
        rows, clock = self.world.run(self.cold.fetch(shard.epoch, shard.now_us(), "t", ["a"], limit, LEASE_MS, BODY_MAX))
        shard.saw_cold_clock(clock)
        return [record.unpack(data) for data, _ in rows]

    def look(self, node: int) -> list[int]:
        """What a worker there would get now, least key first; it is given back as it was."""
        got = self.fetch(node)
        for r in got:
            self.settle(node, r, "release")
        return [r.id for r in got]

    @rule(ms=MILLISECONDS)
    def wait(self, ms: int) -> None:
        self.world.time.ahead_s += ms / 1000

    @rule()
    def tick(self) -> None:
        lead = self.world.lead
        self.world.run(lead.store.cold.turn(lead.epoch, lead.term, self.clock_of_leader, lambda: 0, ends=False))

    def clock_of_leader(self) -> int:
        return self.ticks_from + int(self.world.time.monotonic() * 1e6)

    @rule(node=st.sampled_from(NODES))
    def hear(self, node: int) -> None:
        """As a broker's membership does now and then."""
        self.world.brokers[node].shard.saw_cold_clock(self.world.run(self.world.store.row()).clock_us)

    @rule(node=st.sampled_from(NODES), looks=st.sampled_from(NODES), count=st.integers(1, 3))
    def enqueue(self, node: int, looks: int, count: int) -> None:
        before = self.look(looks)
        request = EnqueueRequest([_draft() for _ in range(count)], count, self.future())
        told = self.commit(node, Batch(enqueues=[request]), request.done)
        after = self.look(looks)
        assert [id for id in after if id in told] == told, "answered, and not to be had, or in another order"
        assert after[: len(before)] == before, "it came before what was due when it was enqueued"

    @rule(node=st.sampled_from(NODES), limit=st.integers(1, 3))
    def lease(self, node: int, limit: int) -> None:
        self.leased += self.fetch(node, limit)

    @rule(node=st.sampled_from(NODES), ms=MILLISECONDS, kind=st.sampled_from(["nack", "release", "ack"]))
    @precondition(lambda self: self.leased)
    def end(self, node: int, ms: int, kind: str) -> None:
        self.settle(node, self.leased.pop(0), kind, struct.pack(">d", ms * 1000.0))


def _draft() -> Draft:
    body = record.body(0, b"", None, None)[record.CREATED.size :]
    return Draft(TOPIC.encode(), 0, body, deliver_after_us=None, delay_us=0, ttl_us=0, max_retries=99, lease_ms=LEASE_MS)


@pytest.fixture
def machine(world: World) -> ColdMachine:
    """One whose rules a test calls itself."""
    machine = ColdMachine()
    machine.world = world
    machine.begin()
    return machine


def test_what_a_quiet_broker_takes_comes_after_what_was_due(machine: ColdMachine) -> None:
    """Between two ticks a retry becomes due; then another broker takes a message."""
    one, other = NODES
    machine.tick()
    machine.enqueue(node=one, looks=one, count=1)
    machine.lease(node=one, limit=1)
    machine.end(node=one, ms=20, kind="nack")
    machine.enqueue(node=one, looks=one, count=1)
    machine.wait(ms=100)
    machine.enqueue(node=other, looks=one, count=1)
    machine.tick()
    assert len(machine.look(other)) == 3


def test_messages_of_one_tick_come_as_they_were_enqueued(machine: ColdMachine) -> None:
    """The ids of the second broker are less."""
    machine.tick()
    for node in NODES:
        machine.enqueue(node=node, looks=node, count=2)


@pytest.mark.slow
def test_order_holds_whatever_the_ticks(world: World) -> None:
    class Machine(ColdMachine):
        pass

    Machine.world = world
    profile = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, print_blob=True, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(Machine, settings=profile)
