"""Requests of one batch that share idempotency keys: one that is refused takes none of them."""

from by_hand import TOPIC, serve
from stores import SECOND, World, message

from mqueue.broker.cache.calls import Enqueue
from mqueue.broker.format import record


def keyed(world: World, group: int, key: bytes, content: bytes) -> Enqueue:
    broker = world.brokers[1]
    enqueue, made = message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=3)
    expires = broker.shard.clock_us + 60_000_000
    told = record.IDEMPOTENCY.pack(made.id, content * 16, 1, broker.shard.sequence, expires, 0, b"u")
    return enqueue._replace(group=group, key_hash=key * 16, key=told)


def apply(world: World, *enqueues: Enqueue) -> list[bytes]:
    applied = world.run(world.brokers[1].batch(enqueues, [], logged=True, repeated=False))
    return [letter for letter, _ in applied.verdicts]


def test_a_refused_request_takes_no_key_from_the_next(world: World) -> None:
    world.run(world.fresh())
    serve(world)
    world.brokers[1].shard.next_sequence()
    assert apply(world, keyed(world, 0, b"k", b"a")) == [b"o"]
    world.brokers[1].shard.next_sequence()
    # The first request takes "n" and is refused, since its second message has another body than "k" had before.
    first = [keyed(world, 0, b"n", b"a"), keyed(world, 0, b"k", b"b")]
    second = [keyed(world, 1, b"n", b"c")]
    third = [keyed(world, 2, b"n", b"c"), keyed(world, 2, b"n", b"c")]  # one message, and its repeat
    fourth = [keyed(world, 3, b"n", b"d")]
    assert apply(world, *first, *second, *third, *fourth) == [b"m", b"m", b"o", b"d", b"d", b"m"]


def test_a_key_that_was_seen_is_there_for_its_batch(world: World) -> None:
    """PostgreSQL has it, and it was about to go from Redis. The batch comes a little later, and looks there alone."""
    world.run(world.fresh())
    serve(world)
    world.brokers[1].shard.next_sequence()
    assert apply(world, keyed(world, 0, b"k", b"a")) == [b"o"]
    world.run(world.flusher.flush(world.lead, everything=True))
    world.run(world.advance(59 * SECOND))
    now_us = world.run(world.tick())
    assert world.run(world.cache.has_key([b"k" * 16], now_us)) != [None]
    world.run(world.advance(5 * SECOND))
    world.run(world.tick())
    world.brokers[1].shard.next_sequence()
    assert apply(world, keyed(world, 0, b"k", b"a")) == [b"d"]
