"""A flush reads thousands of entries that repeat a few messages with a unique key: in pages, each key once."""

from stores import World, message

from mqueue.broker.cache import keys
from mqueue.broker.daemons.flusher import ENTRY, gather

REPEATS = 9_000  # more than Lua hands to a call at once


def test_entries_that_repeat_a_key_are_flushed_page_by_page(world: World) -> None:
    world.run(world.fresh())
    broker, redis, dirty = world.brokers[1], world.cache._redis, keys.dirty(1)
    enqueue, _ = message(broker, next(world.ids), topic="t/a", priority=0, delay_us=0, ttl_us=0, max_retries=3)
    broker.shard.next_sequence()
    world.run(broker.batch([enqueue], [], logged=True, repeated=False))
    [entry] = world.run(redis.lrange(dirty, 0, -1))
    number, when, node, sequence, kinds, ids, _ = ENTRY.unpack_from(entry)
    # as nack after nack of a message with a unique key leaves them
    key = b"k" * 16
    again = [ENTRY.pack(number + n, when, node, sequence, kinds, ids, 1) + entry[ENTRY.size :] + key for n in range(1, REPEATS)]
    for n in range(0, len(again), 1000):
        world.run(redis.rpush(dirty, *again[n : n + 1000]))
    world.run(redis.hset(keys.shard(1), "number", number + REPEATS))
    pages, more = world.run(world.flusher._read(world.lead, 0))
    assert pages and len(pages[0].entries) <= 1000 and more
    assert all(len(page.key_hashes) <= 1 for page in pages)
    assert len(gather(pages)[0].fresh) == 1
    while world.run(world.flusher.flush(world.lead, everything=True)).more:
        pass
    assert world.run(redis.llen(dirty)) == 0
    assert len(world.run(world.rows())) == 1
