"""What is counted is true while it moves from Redis to PostgreSQL."""

import asyncio
from contextlib import aclosing

import pytest
from by_hand import enqueue, serve
from stores import World

from mqueue.broker import views
from mqueue.broker.views import Views
from mqueue.message import TopicName, TopicStats

FLUSH_TAKES_S = 0.05


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
