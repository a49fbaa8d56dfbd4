"""What is counted is true while it moves from Redis to PostgreSQL."""

import asyncio
from contextlib import aclosing

import pytest
from by_hand import enqueue, serve
from stores import World

from mqueue.broker.engine import views
from mqueue.broker.engine.views import GAP_S, Views
from mqueue.broker.store.queries import sql
from mqueue.message import MessageStatus, Result, TopicName, TopicStats

FLUSH_TAKES_S = 0.05
ROWS = 50_000
BLOCKS_MAX = 60  # of 8 KiB that a look at one topic reads; the index of ROWS has some hundreds
FILL = """
INSERT INTO message (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                     created_at_us, payload)
SELECT n, %(topic_id)s, 0, 0, n, 0, 3, 1, 30000, 1, n, n, '\\x00' FROM generate_series(1, %(rows)s) n
"""


async def no_progress(id: int, name: TopicName) -> tuple[None, None]:
    return None, None


def test_what_is_being_flushed_counts_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "LOOK_S", 10.0)  # on a slow machine too
    world.run(world.fresh())
    serve(world)
    enqueue(world, 3)

    async def look_while_flushing() -> list[TopicStats]:
        async with aclosing(world.flush(0, repeated=False, lost=False)) as flush:
            assert [await anext(flush), await anext(flush)] == ["read", "committed"]
            looks = asyncio.create_task(Views([world.lead.shard], no_progress).topics(None))
            await asyncio.sleep(FLUSH_TAKES_S)  # PostgreSQL has them, and Redis does not know it yet
            assert await anext(flush, None) is None
            return await looks

    [topic] = world.run(look_while_flushing())
    assert topic.waiting == 3


def test_a_look_that_takes_longer_than_flushes_are_apart_is_not_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(world.fresh())
    serve(world)
    enqueue(world, 3)
    looks = 0

    async def flushed_meanwhile() -> int:
        nonlocal looks
        looks += 1
        return -1

    monkeypatch.setattr(world.lead.shard.cache, "trimmed", flushed_meanwhile)
    world.run(Views([world.lead.shard], no_progress).topics(None))
    assert looks > 1
    looks = 0
    monkeypatch.setattr(views, "LOOK_S", 0.0)
    [topic] = world.run(Views([world.lead.shard], no_progress).topics(None))
    assert (looks, topic.waiting) == (1, 3)


def test_a_message_that_is_about_to_leave_its_result_is_not_unknown(world: World) -> None:
    """Between its ack and the row of its result there is neither of them."""
    world.run(world.fresh())
    serve(world)

    async def look_between() -> MessageStatus | None:
        looking = asyncio.create_task(Views([world.lead.shard], no_progress, lambda id: id == 5).message(5))
        await asyncio.sleep(GAP_S / 3)  # it has looked, and found neither
        await world.lead.shard.store.keep_results([Result(5, "n", "t", bytes(12), b"1", 60.0)])
        return await looking

    found = world.run(look_between())
    assert found is not None and (found.namespace, found.topic, found.state) == ("n", "t", "done")

    async def look_in_vain() -> float:
        began = asyncio.get_running_loop().time()
        assert await Views([world.lead.shard], no_progress, lambda id: id == 5).message(6) is None
        return asyncio.get_running_loop().time() - began

    assert min(world.run(look_in_vain()) for _ in range(5)) < GAP_S, "what is gone is told at once"


def test_what_waits_is_known_without_counting_it(world: World) -> None:
    """The ledger tells how many rows a topic has: a look at it costs the same with none and with very many."""
    world.run(world.fresh())
    serve(world)
    enqueue(world, 3)
    world.run(world.flusher.flush(world.lead, everything=True))
    [topic_id] = world.run(world.store.topic_ids(["t/a"])).values()
    world.run(world.connection.execute(FILL, {"topic_id": topic_id, "rows": ROWS}))
    world.run(world.connection.execute("UPDATE topic SET enqueued = enqueued + %s WHERE id = %s", [ROWS, topic_id]))

    async def blocks_read() -> int:
        explained = await world.connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql("topic_counts"), {"namespaces": None})
        [(plans,)] = await explained.fetchall()
        read = plans[0]["Plan"]
        return int(read["Shared Hit Blocks"] + read["Shared Read Blocks"])

    assert world.run(blocks_read()) < BLOCKS_MAX, "it reads the rows"
    [topic] = world.run(Views([world.lead.shard], no_progress).topics(None))
    assert topic.waiting == 3 + ROWS
