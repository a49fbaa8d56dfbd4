"""Whoever fetches from topics that do not exist leaves nothing behind: no rows, and nothing in Redis for long."""

from collections.abc import Iterator

import pytest
from stores import NODES, SECOND, World

from mqueue.broker.cache import keys
from mqueue.broker.daemons.reconciler import Reconciler
from mqueue.message import BATCH_MAX

MANY = 25_000  # topics that nobody has ever put anything into
IDLE_US = 600 * SECOND  # after which a topic with messages leaves Redis
SOON_US = 90 * SECOND


@pytest.fixture(autouse=True)
def fresh(world: World) -> Iterator[None]:
    world.run(world.fresh())
    yield
    world.run(world.fresh())


def fetch(world: World, topics: list[str]) -> str:
    return world.run(world.cache.fetch(world.lead.epoch, NODES[0], topics, 1, 0, True)).status


async def rows(world: World) -> int:
    [(count,)] = await (await world.connection.execute("SELECT count(*) FROM topic")).fetchall()
    return int(count)


async def held(world: World) -> list[bytes]:
    """What Redis has of topics."""
    parts = ("topic:", "topics", "waiters:", "asked:", "ready:", "spill:")
    mine = tuple((keys.prefix(world.cache.shard) + part).encode() for part in parts)
    return [key async for key in world.cache._redis.scan_iter(match=keys.prefix(world.cache.shard) + "*", count=10_000) if key.startswith(mine)]


def test_topics_that_are_only_fetched_from_are_forgotten(world: World) -> None:
    topics = [f"n/{n}" for n in range(3 * BATCH_MAX)]
    for at in range(0, len(topics), 100):
        assert fetch(world, topics[at : at + 100]) == "ask"
        world.run(world.prefetcher.refill(world.lead, topics[at : at + 100]))
        assert fetch(world, topics[at : at + 100]) == "nothing"
    world.run(world.prefetcher.evict(world.lead, IDLE_US))
    assert fetch(world, topics[:100]) == "nothing", "it is in use"
    world.run(world.advance(SOON_US))
    for _ in range(10):
        world.run(world.prefetcher.evict(world.lead, IDLE_US))
    assert len(world.run(held(world))) < BATCH_MAX // 2, "some, by chance, until the next turn"


def test_no_row_is_made_for_a_topic_that_is_only_fetched_from(world: World) -> None:
    topics = ["n/a", "n/b"]
    fetch(world, topics)
    world.run(world.prefetcher.refill(world.lead, topics))
    assert fetch(world, topics) == "nothing"
    reconciler = Reconciler(0)
    for _ in range(2 * len(topics)):
        assert world.run(reconciler.reconcile(world.lead)) == 0
    assert world.run(rows(world)) == 0
    assert world.store._topic_ids == {}


def test_a_bounded_number_waits_to_be_opened(world: World) -> None:
    """As while PostgreSQL is away: nobody opens them."""
    for at in range(0, MANY, BATCH_MAX):
        assert fetch(world, [f"n/{n}" for n in range(at, at + BATCH_MAX)]) == "ask"
    asked = world.run(world.cache._redis.zcard(keys.prefix(world.cache.shard) + "asked:n"))
    assert 0 < asked < MANY
    assert len(world.run(held(world))) <= asked + 2
    assert fetch(world, ["m/a"]) == "ask"
    assert world.run(world.cache._redis.zcard(keys.prefix(world.cache.shard) + "asked:m")) == 1, "another namespace's has its place"
