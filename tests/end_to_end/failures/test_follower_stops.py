"""A follower that stops leaves nothing that only its own log has."""

from pathlib import Path

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET
from tests.waiting import until

MANY = 50
SOON_S = 20.0


async def test_a_follower_that_stopped_is_not_needed_when_redis_is_lost(data_dir: Path) -> None:
    settings = {"MQUEUE_FLUSH_AGE_MS": "60000", "MQUEUE_LOG_LEVEL": "info"}  # nothing is flushed by itself meanwhile
    async with Stage(data_dir, 1, 2, SECRET, settings) as stage:
        await stage.settled()
        leader = await stage.leader()
        [follower] = [broker for broker in stage.brokers if broker is not leader]
        async with AsyncClient(follower.url, stage.token) as client:
            ids = await client.enqueue_many([wire.EnqueueItem(topic="work", payload=b"%d" % n) for n in range(MANY)])
        assert await follower.stop() == 0
        await stage.flush_redis()
        async with AsyncClient(leader.url, stage.token, timeout=10.0) as client:
            got = await until(lambda: client.fetch(["work"], limit=2 * MANY), "delivered without the follower", SOON_S, despite=Exception)
        assert [m.id for m in got] == ids
    assert "all that this broker had taken is in PostgreSQL" in follower.log.read_text()
