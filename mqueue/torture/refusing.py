"""PostgreSQL refuses some rows, since somebody's trigger raises. They are set aside, and hold up nothing."""

import asyncio
import random
import time
from typing import LiteralString

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import MQueueError
from mqueue.torture.damage import Damage
from mqueue.torture.stage import Stage

TOPICS = ("refused-0", "refused-1", "refused-2", "refused-3")  # of both shards
EACH = 6
ASIDE_S = 20.0
PAUSE_S = 0.1
# a payload of `message` and not of `staging`: what PostgreSQL is asked to keep
TRIGGER: LiteralString = """
CREATE OR REPLACE FUNCTION torture_refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
CREATE OR REPLACE TRIGGER torture_refuses BEFORE INSERT OR UPDATE ON message
FOR EACH ROW WHEN (new.payload = 'refused') EXECUTE FUNCTION torture_refuses();
"""
NO_TRIGGER: LiteralString = "DROP FUNCTION torture_refuses CASCADE"
# what somebody does who has looked at them: they are no more, and the ledger says so
PURGE: LiteralString = """
WITH gone AS (DELETE FROM refused RETURNING topic_id)
UPDATE topic t SET purged = purged + g.count FROM (SELECT topic_id, count(*) FROM gone GROUP BY topic_id) g WHERE t.id = g.topic_id
"""


async def postgres_refuses(stage: Stage, chance: random.Random) -> Damage:
    """The flush meets such rows; or, where Redis forgets meanwhile, a replay does."""
    lost = chance.random() < 0.5
    await stage.tell_postgres(TRIGGER)
    async with AsyncClient(stage.brokers[0].url, stage.token, timeout=5.0) as client:
        items = [wire.EnqueueItem(topic=topic, payload=b"refused", max_retries=100) for topic in TOPICS for _ in range(EACH)]
        chance.shuffle(items)
        await client.enqueue_many(items)
        if lost:
            await stage.flush_redis()
        reached = await _until_aside(stage, len(items))
        await stage.settled()
        await stage.tell_postgres(NO_TRIGGER)
        if not lost:  # Redis has them yet, and delivers them
            await _ack_all(client, len(items))
    await stage.tell_postgres(PURGE)
    return Damage(lost=lost, reached=reached, note="met by a replay" if lost else "met by a flush")


async def _ack_all(client: AsyncClient, count: int) -> None:
    deadline = time.monotonic() + ASIDE_S
    while count and time.monotonic() < deadline:
        try:
            got = await client.fetch(TOPICS, limit=count, wait=0.5, lease=10.0)
            count -= sum(verdict.status == "ok" for verdict in await client.ack(got)) if got else 0
        except MQueueError:
            await asyncio.sleep(PAUSE_S)


async def _until_aside(stage: Stage, count: int) -> bool:
    """Returns whether all of them were set aside in time."""
    deadline = time.monotonic() + ASIDE_S
    while time.monotonic() < deadline:
        if sum(await stage.tell_postgres("SELECT count(*) FROM refused")) >= count:
            return True
        await asyncio.sleep(PAUSE_S)
    return False
