"""What the leader reads of a topic with very many delayed rows does not grow with them."""

from collections.abc import Callable
from typing import Any

import pytest
from stores import NODES, SECOND, World, message

from mqueue.broker.cache import keys
from mqueue.broker.daemons.reconciler import Reconciler
from mqueue.broker.store.queries import sql

TOPIC = "t/a"
ROWS, PRIORITIES = 200_000, 20
BLOCKS_MAX = 400  # of 8 KiB that a step reads: some few for each priority; the index of ROWS has more than 1,000
FILL = """
INSERT INTO message (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                     created_at_us, payload)
SELECT n, %(topic_id)s, n %% %(priorities)s, 0, %(due)s + n, 0, 3, 1, 30000, 1, n, n, '\\x00' FROM generate_series(1, %(rows)s) n
"""


@pytest.fixture
def large(world: World) -> World:
    """All of its rows are delayed, but for one of the greatest priority, which is ready and waits there alone."""
    world.run(world.fresh())
    broker = world.brokers[NODES[0]]
    assert world.run(world.cache.fetch(world.lead.epoch, NODES[0], [TOPIC], 1, 1000, False)).status == "ask"
    world.run(world.prefetcher.refill(world.lead, [TOPIC]))
    broker.shard.next_sequence()
    made = [message(broker, next(world.ids), topic=TOPIC, priority=p, delay_us=0, ttl_us=0, max_retries=3) for p in (0, PRIORITIES)]
    world.run(broker.batch([enqueue for enqueue, _ in made], [], logged=True, repeated=False))
    world.run(world.work([TOPIC]))
    [topic_id] = world.run(world.store.topic_ids([TOPIC])).values()
    due = broker.shard.now_us() + 3600 * SECOND
    world.run(world.connection.execute(FILL, {"topic_id": topic_id, "rows": ROWS, "priorities": PRIORITIES, "due": due}))
    world.run(world.connection.execute("VACUUM (ANALYZE) message"))  # as autovacuum does sooner or later: not amid a test
    return world


@pytest.fixture
def blocks(large: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how many blocks the statements have read since it was asked last."""
    session, count = large.session, 0
    ask = session.ask

    async def explain(name: str, **args: Any) -> list[Any]:
        nonlocal count
        explained = await large.connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql(name), args)
        for (plans,) in await explained.fetchall():
            count += plans[0]["Plan"]["Shared Hit Blocks"] + plans[0]["Plan"]["Shared Read Blocks"]
        return await ask(name, **args)

    def read() -> int:
        nonlocal count
        count, was = 0, count
        return was

    monkeypatch.setattr(session, "ask", explain)
    return read


def test_a_step_of_the_reconciler_finds_what_is_overdue_behind_them(large: World, blocks: Callable[[], int]) -> None:
    world = large
    members = world.run(world.cache._redis.zrange(keys.ready(1, TOPIC), 0, -1))
    world.run(world.cache._redis.zrem(keys.ready(1, TOPIC), members[-1]))  # as if Redis had lost one record alone
    world.run(world.cache._redis.hdel(keys.record(1), members[-1][-8:]))
    world.run(world.cache._redis.hdel(keys.body(1), members[-1][-8:]))
    world.run(world.advance(61 * SECOND))
    world.run(world.tick())
    reconciler, found, most = Reconciler(), 0, 0
    for _ in range(PRIORITIES):
        blocks()
        found += world.run(reconciler.reconcile(world.lead))
        most = max(most, blocks())
        if found:
            break
    assert most < BLOCKS_MAX, "it reads what is not due"
    assert found == 1


def test_a_refill_passes_them_over(large: World, blocks: Callable[[], int]) -> None:
    """A new epoch: the topic is opened."""
    world = large
    world.run(world.lose_redis(True, NODES))
    world.run(world.connection.execute("VACUUM ANALYZE message"))
    world.run(world.prefetcher.refill(world.lead, [TOPIC]))
    assert 0 < blocks() < BLOCKS_MAX
    assert len(world.run(world.ready(TOPIC))) == 2
