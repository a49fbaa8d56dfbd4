"""What nobody would deliver is found: a row below the frontier whose record is gone from Redis."""

from stores import NODES, SECOND, World, message

from mqueue.broker.cache import keys
from mqueue.broker.daemons.reconciler import Reconciler

TOPIC = "t/a"


def _put(world: World, priorities: list[int]) -> list[int]:
    broker = world.brokers[NODES[0]]
    broker.shard.next_sequence()
    made = [message(broker, next(world.ids), topic=TOPIC, priority=p, delay_us=0, ttl_us=0, max_retries=3) for p in priorities]
    world.run(broker.batch([enqueue for enqueue, _ in made], [], logged=True, repeated=False))
    return [r.id for _, r in made]


def _get(world: World, limit: int = 10) -> list[int]:
    got = world.run(world.cache.fetch(world.lead.epoch, NODES[0], [TOPIC], limit, 1000, False))
    return [int.from_bytes(data[30:38]) for data in got.records]


def _reconcile(world: World, reconciler: Reconciler) -> int:
    world.run(world.tick())
    return max(world.run(reconciler.reconcile(world.lead)) for _ in range(3))


def _forget(world: World, id: int) -> None:
    """As if Redis had lost one record alone."""
    redis, raw = world.cache._redis, id.to_bytes(8)
    for member in world.run(redis.zrange(keys.ready(1, TOPIC), 0, -1)):
        if member.endswith(raw):
            world.run(redis.zrem(keys.ready(1, TOPIC), member))
    world.run(redis.hdel(keys.record(1), raw))
    world.run(redis.hdel(keys.body(1), raw))


def test_a_row_that_nobody_would_deliver_is_found_and_placed(world: World) -> None:
    world.run(world.fresh())
    assert _get(world) == []
    world.run(world.prefetcher.refill(world.lead, [TOPIC]))  # opens the topic: all of it is in Redis from here on
    first, second, third = _put(world, [0, 1, 2])
    world.run(world.work([TOPIC]))
    _forget(world, second)
    reconciler = Reconciler()
    assert _reconcile(world, reconciler) == 0, "not overdue yet"
    world.run(world.advance(61 * SECOND))
    assert _reconcile(world, reconciler) == 1
    world.run(world.prefetcher.arrivals(world.lead))
    assert _get(world) == [first, second, third]


def test_what_is_known_or_above_the_frontier_is_left_alone(world: World) -> None:
    world.run(world.fresh())
    _put(world, [n % 3 for n in range(12)])  # more than the ready queue takes
    world.run(world.work([TOPIC]))
    [id] = _get(world, 1)
    world.run(world.advance(61 * SECOND))
    assert _reconcile(world, Reconciler()) == 0
    assert world.run(world.store.existing([id]))
