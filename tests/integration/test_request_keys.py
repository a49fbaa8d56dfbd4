"""The key of a whole request holds for its 10 minutes, however many others come, and Redis holds a bounded number."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from by_hand import TOPIC, flush, serve
from stores import NUMBER, SECOND, World

from mqueue.broker.cache import keys
from mqueue.broker.commit.batch import Draft, EnqueueRequest, Stamp, for_script, number, refusal
from mqueue.broker.daemons.key_mover import KeyMover
from mqueue.broker.engine.enqueuer import Enqueuer
from mqueue.broker.metrics import Metrics
from mqueue.broker.slots import SlotMap
from mqueue.errors import BufferFull, KeyReused
from mqueue.message import NewMessage, RequestKey

KEEP = 3


class Batches:
    """In the committer's place: each request is a batch of its own."""

    def __init__(self, world: World, node: int) -> None:
        self._world, self._broker = world, world.brokers[node]
        self.before: list[Any] = []

    async def enqueue(self, drafts: Sequence[Draft], key_hash: bytes, body_hash: bytes, epoch: int) -> list[int]:
        if self.before:
            await self.before.pop()()
        shard = self._broker.shard
        shard.next_sequence()
        request = EnqueueRequest(drafts, 0, cast(Any, None), key_hash, body_hash, epoch)
        stamp = Stamp(shard.node, shard.sequence, shard.clock_us, shard.clocks.due_clock)
        applied = await self._broker.batch(for_script(0, number(request, cast(Any, self), stamp)), [], logged=True, repeated=False)
        if (error := refusal(applied.verdicts, bool(key_hash))) is not None:
            raise error
        return [int.from_bytes(id) for _, id in applied.verdicts]

    def take(self, count: int) -> list[int]:
        return [next(self._world.ids) for _ in range(count)]


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.run(world.fresh())
    serve(world)


def enqueue(world: World, key: str, *, many: int = 1, body: bytes = b"b", node: int = 1, before: Any = None) -> list[int]:
    batches = Batches(world, node)
    batches.before = [before] if before else []
    shard = world.brokers[node].shard
    slots = SlotMap([0] * 16384)
    enqueuer = Enqueuer(
        [shard], cast(Any, [batches]), slots, Metrics(), shard.clock, lease_s=30, max_retries=3, idempotency_s=60
    )  # fmt: skip
    namespace, topic = TOPIC.split("/")
    messages = [NewMessage(namespace, topic, b"x") for _ in range(many)]
    return world.run(enqueuer.enqueue(messages, RequestKey(key, body * 16))).ids


def move(world: World) -> int:
    return world.run(KeyMover(KEEP).move(world.lead))


def in_redis(world: World) -> int:
    return world.run(world.cache._redis.zcard(keys.prefix(NUMBER) + "request_keys"))


def test_keys_beyond_what_redis_keeps_hold_all_the_same(world: World) -> None:
    first = {f"k{n}": enqueue(world, f"k{n}", many=1 + n % 3) for n in range(8)}
    assert move(world) == 0, "nothing is flushed yet"
    flush(world)
    assert move(world) == 8 - KEEP
    assert in_redis(world) == KEEP
    assert {key: enqueue(world, key, many=len(ids), node=2) for key, ids in first.items()} == first
    with pytest.raises(KeyReused):
        enqueue(world, "k0", body=b"c")
    assert enqueue(world, "new") != [], "and one that nobody used is free"


def test_a_key_that_moves_while_it_is_looked_for_is_found(world: World) -> None:
    first = [enqueue(world, f"k{n}") for n in range(4)]
    flush(world)

    async def moves() -> None:
        assert await KeyMover(KEEP).move(world.lead) == 1

    assert enqueue(world, "k0", before=moves) == first[0]


def test_an_epoch_later_they_hold_too(world: World) -> None:
    first = [enqueue(world, f"k{n}") for n in range(5)]
    flush(world)
    assert move(world) == 5 - KEEP
    world.run(world.lose_redis(True, (1, 2)))
    serve(world)
    assert [enqueue(world, f"k{n}") for n in range(5 - KEEP)] == first[: 5 - KEEP]


def test_their_time_ends_in_postgresql_too(world: World) -> None:
    first = [enqueue(world, f"k{n}") for n in range(4)]
    flush(world)
    assert move(world) == 1
    world.run(world.advance(601 * SECOND))
    world.run(world.tick())
    for broker in world.brokers.values():
        broker.shard.clocks.saw(0, world.run(world.clock()), broker.shard.clock.monotonic())
    serve(world)
    assert enqueue(world, "k0") != first[0]


def test_redis_takes_no_more_than_its_number(world: World) -> None:
    async def fill() -> None:
        name = keys.prefix(NUMBER) + "request_keys"
        for at in range(0, 100_000, 1000):
            await world.cache._redis.zadd(name, {n.to_bytes(16): 1 << 60 for n in range(at, at + 1000)})

    enqueue(world, "a")
    world.run(fill())
    enqueuer_gives_up = pytest.raises(BufferFull)
    with enqueuer_gives_up:
        enqueue(world, "b")
    assert enqueue(world, "a") != [], "one that is known is answered"
