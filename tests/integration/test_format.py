"""Brokers of two releases never read each other's state in Redis."""

import pytest
from by_hand import TOPIC, enqueue, fetch, serve
from stores import LIMITS, NUMBER, World

from mqueue.broker.cache import keys
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.faults import EpochEnded


def test_a_release_with_another_format_opens_its_own_epoch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(world.fresh())
    serve(world)
    enqueue(world, 2)
    assert fetch(world) != []
    epoch, term = world.lead.epoch, world.lead.term
    redis = world.cache._redis

    async def of_another_release() -> None:
        monkeypatch.setattr(keys, "FORMAT", keys.FORMAT + 1)
        cache = ReadyCache(NUMBER, world.urls.redis_addrs[0], world.urls.redis_password)
        try:
            assert await cache.lead(term, "a", LIMITS) is None, "it finds no epoch"
            with pytest.raises(EpochEnded):
                await cache.fetch(epoch, 2, [TOPIC], 1, 1000, False)
            await cache.clear(term)
            assert [key async for key in redis.scan_iter(match=keys.tag(NUMBER).replace("{", "\\{") + "*")] == [keys.shard(NUMBER).encode()]
        finally:
            await cache.close()
            monkeypatch.undo()

    world.run(of_another_release())
    with pytest.raises(EpochEnded):
        world.run(world.cache.fetch(epoch, 1, [TOPIC], 1, 1000, False))
