"""What is counted is true while it moves from Redis to PostgreSQL."""

import asyncio
from contextlib import aclosing

from by_hand import enqueue, serve
from stores import World

from mqueue.broker.views import Views
from mqueue.message import TopicName, TopicStats

FLUSH_TAKES_S = 0.05


async def no_progress(id: int, name: TopicName) -> tuple[None, None]:
    return None, None


def test_what_is_being_flushed_counts_once(world: World) -> None:
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
