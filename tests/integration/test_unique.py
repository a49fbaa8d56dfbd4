"""`unique_key`: while a message waits under one, enqueueing under it again is that message, wherever it waits; one that
runs does not count.
"""

import asyncio
import os
import random
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from by_hand import TOPIC, ending, fetch, flush, serve, settle
from stores import NODES, SECOND, World, message

from mqueue.broker.cache import keys
from mqueue.broker.cache.calls import FlushPage, SettleArgs
from mqueue.broker.commit.batch import Draft, EnqueueRequest, Stamp, for_script, number, refusal
from mqueue.broker.daemons.flusher import gather
from mqueue.broker.engine.enqueuer import Enqueuer
from mqueue.broker.format import record
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import Shard
from mqueue.broker.slots import SlotMap
from mqueue.errors import KeyReused
from mqueue.message import NewMessage, RequestKey

KEYS = ("x", "y", "z")
SEEDS, STEPS = int(os.environ.get("MQUEUE_UNIQUE_SEEDS", "12")), 150


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.run(world.fresh())
    serve(world)


class Batches:
    """In the committer's place: each request is a batch of its own. `before`: called when PostgreSQL has been looked
    at.
    """

    def __init__(self, world: World, node: int) -> None:
        self._broker = world.brokers[node]
        self._world = world
        self.before: list[Callable[[], Awaitable[Any]]] = []
        self.settles: list[SettleArgs] = []  # of the next batch
        self.looked_again = 0

    async def enqueue(self, drafts: Sequence[Draft], key_hash: bytes, body_hash: bytes, epoch: int) -> list[int]:
        if self.before:
            await self.before.pop()()
        shard = self._broker.shard
        shard.next_sequence()
        request = EnqueueRequest(drafts, 0, asyncio.get_running_loop().create_future(), key_hash, body_hash, epoch)
        stamp = Stamp(shard.node, shard.sequence, shard.clock_us, shard.clocks.due_clock)
        ids = cast(Any, self)
        applied = await self._broker.batch(for_script(0, number(request, ids, stamp)), self.settles, logged=True, repeated=False)
        self.settles = []
        if (error := refusal(applied.verdicts, bool(key_hash))) is not None:
            self.looked_again += 1
            raise error
        return [int.from_bytes(id) for _, id in applied.verdicts]

    def take(self, count: int) -> list[int]:
        return [next(self._world.ids) for _ in range(count)]


@dataclass
class Producer:
    world: World
    node: int = 1
    batches: Batches = field(init=False)
    enqueuer: Enqueuer = field(init=False)

    def __post_init__(self) -> None:
        self.batches = Batches(self.world, self.node)
        shard = self.world.brokers[self.node].shard
        self.enqueuer = Enqueuer(
            [shard], cast(Any, {shard.number: self.batches, 0: self.batches}), SlotMap([0] * 16384), Metrics(), shard.clock,
            lease_s=30, max_retries=3, idempotency_s=600,
        )  # fmt: skip

    def enqueue(self, *unique: str | None, request: str | None = None, before: Sequence[Callable[[], Awaitable[Any]]] = (), **more: Any) -> Any:
        self.batches.before = list(before)
        messages = [NewMessage("t", "a", b"p", unique_key=key, **more) for key in unique]
        key = None if request is None else RequestKey(request, b"%-16d" % len(unique))
        return self.world.run(self.enqueuer.enqueue(messages, key)).ids


def cancel(world: World, id: int) -> None:
    """One that waits."""
    broker = world.brokers[2]
    broker.shard.next_sequence()
    _, row = world.run(broker.shard.store.row_to_cancel(id))
    args = SettleArgs(id.to_bytes(8), TOPIC.encode(), "cancel", b"", b"", row)
    assert world.run(broker.batch([], [args], logged=True, repeated=False)).outcomes[0].verdict == b"o"


def nack(world: World, r: record.Record) -> None:
    assert settle(world, r, "nack", bytes(8)).verdict == b"o"  # a delay of 0: it is due at once


def key_records(world: World) -> int:
    return int(world.run(world.cache._redis.hlen(keys.idempotency(world.lead.shard.number))))


@pytest.mark.parametrize("flag", [8, 16, 32, 64, 128])
def test_a_flag_that_the_scripts_do_not_know_changes_nothing(world: World, flag: int) -> None:
    broker = world.brokers[1]

    async def enqueued() -> None:
        made, _ = message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=3)
        broker.shard.next_sequence()
        await broker.batch([made._replace(record=made.record[:1] + bytes((flag,)) + made.record[2:])], [], logged=True, repeated=False)

    assert fetch(world) == []  # the topic is open: Redis alone has the message
    world.run(enqueued())
    [first] = fetch(world)
    assert first.flags == flag
    nack(world, first)
    assert key_records(world) == 0
    [second] = fetch(world)
    assert (second.id, second.attempts, second.flags) == (first.id, 1, flag)


@pytest.mark.parametrize("where", ["ready", "delayed", "spill", "flushed", "beyond T", "spilled and flushed", "lost with Redis"])
def test_what_waits_is_found(world: World, where: str) -> None:
    producer, other = Producer(world), Producer(world, 2)
    delay = {"delayed": 5.0, "beyond T": 5000.0}.get(where)
    if where in ("ready", "flushed"):
        assert fetch(world) == []  # so that its frontier has risen
    [first] = producer.enqueue("x", delay=delay)
    if where in ("flushed", "beyond T", "spilled and flushed"):
        flush(world)
    if where == "lost with Redis":
        world.run(world.lose_redis(True, list(NODES)))
        serve(world)
        producer, other = Producer(world), Producer(world, 2)
    data, _, _ = world.run(world.cache.record(first.to_bytes(8)))
    assert (data or b"")[:1] == {"ready": b"r", "delayed": b"d", "spill": b"s", "flushed": b"r"}.get(where, b"")
    assert producer.enqueue("x") == [first]
    assert other.enqueue("x", priority=3) == [first]
    [second] = other.enqueue("y")
    assert second != first


def test_only_what_waits_counts(world: World) -> None:
    producer = Producer(world)
    [first] = producer.enqueue("x")
    [running] = fetch(world)
    [second] = producer.enqueue("x")
    assert second != first
    assert producer.enqueue("x") == [second]
    nack(world, running)
    assert producer.enqueue("x")[0] in (first, second)
    for _ in range(2):
        assert settle(world, fetch(world)[0], "ack").verdict == b"o"
    assert producer.enqueue("x")[0] not in (first, second)


@pytest.mark.parametrize("flushed", [False, True])
def test_a_retry_counts_while_its_younger_twin_runs(world: World, flushed: bool) -> None:
    producer = Producer(world)
    assert fetch(world) == []
    [first] = producer.enqueue("x")
    [running] = fetch(world)
    [second] = producer.enqueue("x", priority=-1)
    if flushed:
        flush(world)
    nack(world, running)
    assert producer.enqueue("x")[0] in (first, second)
    assert [r.id for r in fetch(world)] == [second]
    assert producer.enqueue("x") == [first]
    assert [r.id for r in fetch(world)] == [first]
    assert producer.enqueue("x")[0] not in (first, second)


def test_a_retry_in_the_batch_that_enqueues_its_twin_counts(world: World) -> None:
    producer = Producer(world)
    assert fetch(world) == []
    [first] = producer.enqueue("x")
    [running] = fetch(world)
    producer.batches.settles = [ending(running, "nack", bytes(8))]
    [second] = producer.enqueue("x", priority=-1)
    assert second != first
    assert [r.id for r in fetch(world)] == [second]
    assert producer.enqueue("x") == [first]


def test_a_retry_counts_while_many_twins_run(world: World) -> None:
    producer = Producer(world)
    assert fetch(world) == []
    running = []
    for _ in range(30):
        producer.enqueue("x")
        running += fetch(world)
    assert len({r.id for r in running}) == 30
    flush(world)
    nack(world, running[0])
    assert producer.enqueue("x") == [running[0].id]


def test_one_request_and_one_batch_have_one(world: World) -> None:
    producer = Producer(world)
    a, b, c, d = producer.enqueue("x", "x", None, "y")
    assert a == b
    assert len({a, c, d}) == 3
    assert producer.enqueue("y", "x") == [d, a]


def test_a_repeated_request_is_told_the_same(world: World) -> None:
    producer = Producer(world)
    [first] = producer.enqueue("x")
    made = producer.enqueue("x", "y", None, request="r")
    assert made[0] == first
    fetch(world, 3)
    [other] = producer.enqueue("y")  # the y of the request runs
    assert other not in made
    assert producer.enqueue("x", "y", None, request="r")[1:] == made[1:]
    with pytest.raises(KeyReused) as refused:
        producer.enqueue("x", "y", request="r")
    assert refused.value.field == "Idempotency-Key"


def test_one_that_has_expired_does_not_count(world: World) -> None:
    producer = Producer(world)
    [first] = producer.enqueue("x", ttl=2.0)
    [spilled] = producer.enqueue("y", ttl=2.0)
    flush(world)
    world.run(world.advance(3 * SECOND))
    world.run(world.tick())
    assert producer.enqueue("x")[0] != first
    assert producer.enqueue("y")[0] != spilled


def test_a_flush_between_look_and_batch_is_noticed(world: World) -> None:
    """The look finds nothing; then another broker enqueues, and the flush takes it out of Redis."""
    producer, other = Producer(world), Producer(world, 2)
    made: list[int] = []

    async def meanwhile() -> None:
        accepted = await other.enqueuer.enqueue([NewMessage("t", "a", b"p", unique_key="x")])
        made.extend(accepted.ids)
        await world.flusher.flush(world.lead, everything=True)

    assert producer.enqueue("x", before=[meanwhile]) == made
    assert producer.batches.looked_again == 1


def test_nothing_of_a_key_stays_in_redis(world: World) -> None:
    producer = Producer(world)
    for key in KEYS:
        producer.enqueue(key)
    assert key_records(world) == 3
    for r in fetch(world, 2):
        assert settle(world, r, "ack").verdict == b"o"
    [running] = fetch(world)
    producer.enqueue("z")
    nack(world, running)
    flush(world)
    flush(world)
    assert key_records(world) == 0


@dataclass
class Truth:
    """Who waits, runs, is done; and under which key."""

    key: dict[int, str] = field(default_factory=dict)
    waits: set[int] = field(default_factory=set)
    runs: dict[int, record.Record] = field(default_factory=dict)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_walk(world: World, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes between: an enqueue makes a message if none waits under its key, and else is one of those."""
    chance = random.Random(seed)
    truth = Truth()
    stages: list[Any] = []
    often_flushed = chance.choice([0, 0.2, 1, 4])
    nodes = chance.choice([NODES, NODES[:1]])  # of two brokers each often waits until the other's messages are flushed

    async def come_between() -> None:
        """A flush, a refill or the time scan goes on by a stage."""
        if not stages:
            work = [
                lambda: world.flush(0, False, False),
                lambda: world.refill([TOPIC], 2),
                lambda: world.scan(2),
                lambda: world.evict(TOPIC, 2),
            ]
            stages.append(chance.choices(work, [often_flushed, 3, 1, 1])[0]())
        try:
            await anext(stages[0])
        except StopAsyncIteration:
            stages.clear()

    async def hurry(_: Shard) -> None:
        """A message of the other broker, whose disk may not have it, is in PostgreSQL then."""
        while stages:
            await come_between()
        await world.flusher.flush(world.lead, everything=True)

    monkeypatch.setattr(Shard, "hurry_flush", hurry)
    assert fetch(world) == []
    for step in range(STEPS):
        what = chance.choice(["enqueue"] * 6 + ["fetch"] * 4 + ["ack", "nack", "nack", "release", "cancel"] + ["between"] * 6 + ["lose"])
        if what == "enqueue":
            key, count = chance.choice(KEYS), chance.choice([1, 1, 2])
            before = [come_between] * chance.randint(0, 2)
            delay = 5000.0 if chance.random() < 0.1 else None
            now = {id for id in truth.waits if truth.key[id] == key}
            producer = Producer(world, chance.choice(nodes))
            again = chance.choice(sorted(truth.runs)) if truth.runs and chance.random() < 0.3 else None
            if again is not None:  # a delivery ends in the same batch
                producer.batches.settles = [ending(truth.runs.pop(again), "release")]
                truth.waits.add(again)
            ids = producer.enqueue(*[key] * count, before=before, delay=delay)
            if producer.batches.looked_again and again is not None and truth.key[again] == key:
                now.add(again)  # it has ended before
            assert len(set(ids)) == 1, (step, key, ids)
            assert (ids[0] in now) if now else (ids[0] not in truth.key), (step, key, ids, now, sorted(truth.runs))
            truth.key[ids[0]] = key
            truth.waits.add(ids[0])
        elif what == "fetch":
            got = world.run(world.cache.fetch(world.lead.epoch, 1, [TOPIC], 1, 20_000, False))
            for data in got.records if got.status == "ok" else ():
                r = record.unpack(data)
                truth.waits.remove(r.id)
                truth.runs[r.id] = r
        elif what in ("ack", "nack", "release") and truth.runs:
            r = truth.runs.pop(chance.choice(sorted(truth.runs)))
            assert settle(world, r, what, bytes(8) if what == "nack" else b"").verdict == b"o"
            if what != "ack" and (what == "release" or r.attempts < 3):
                truth.waits.add(r.id)
        elif what == "cancel" and truth.waits:
            id = chance.choice(sorted(truth.waits))
            cancel(world, id)
            truth.waits.remove(id)
        elif what == "between":
            world.run(come_between())
        elif what == "lose" and chance.random() < 0.2:
            stages.clear()
            world.run(world.lose_redis(chance.random() < 0.5, list(NODES)))
            serve(world)
            truth.waits |= truth.runs.keys()
            truth.runs.clear()
    while stages:
        world.run(come_between())
    flush(world)
    assert key_records(world) == 0


def test_nothing_stays_of_two_that_wait_and_are_flushed_at_once(world: World) -> None:
    producer = Producer(world)
    assert fetch(world) == []
    producer.enqueue("x")
    [running] = fetch(world)
    producer.enqueue("x")
    nack(world, running)
    flush(world)
    assert key_records(world) == 0


def test_a_flush_reports_only_keys_of_messages_that_it_writes() -> None:
    """A key's record may name a message of a later entry, which is not read yet."""
    entry = struct.pack(">QQHQHHH", 7, 1, 1, 1, 0, 1, 1) + b"message1" + b"k" * 16
    key = record.IDEMPOTENCY.pack(int.from_bytes(b"message2"), bytes(16), 1, 2, 0, 0, b"w") + b"message1" + struct.pack(">I", 1)
    page = FlushPage([entry], [b"message1"], [None], b"0", [None], [None], [b"k" * 16], [key])
    batch, versions, reported = gather([page])
    assert (batch.keys, versions, reported) == ([], [], [b"k" * 16 + b"message1"])
