"""A thousand topics are opened at once: Redis has forgotten them, and pollers of many topics each ask for them."""

import asyncio
import random
import time

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import MQueueError
from mqueue.torture.damage import Damage
from mqueue.torture.stage import Stage

TOPICS = [f"one-of-many-{n}" for n in range(1000)]
PART = 50  # topics of one poller
SERVED_S = 30.0
LEASE_S = 10.0
PAUSE_S = 0.1


async def many_topics(stage: Stage, chance: random.Random) -> Damage:
    """A message waits in each of them. Returns when all have come and are acked."""
    began = time.monotonic()
    clients = [AsyncClient(broker.url, stage.token, timeout=SERVED_S) for broker in stage.brokers]
    try:
        await clients[0].enqueue_many([wire.EnqueueItem(topic=topic, payload=b"", max_retries=100) for topic in TOPICS])
        await stage.flush_redis()
        parts = [TOPICS[at : at + PART] for at in range(0, len(TOPICS), PART)]
        served = await asyncio.gather(*(_poll(chance.choice(clients), part, began + SERVED_S) for part in parts))
    finally:
        for client in clients:
            await client.close()
    left = sorted(topic for part in served for topic in part)
    some = f", {len(left)} not served: {', '.join(left[:3])}" if left else ""
    return Damage(lost=True, reached=not left, note=f"{time.monotonic() - began:.1f} s{some}")


async def _poll(client: AsyncClient, topics: list[str], deadline: float) -> set[str]:
    """Returns those of which no message came in time."""
    left = set(topics)
    while left and time.monotonic() < deadline:
        try:
            got = await client.fetch(tuple(topics), limit=PART, wait=0.5, lease=LEASE_S)
            left -= {message.topic for message in got}
            if got:
                await client.ack(got)
        except MQueueError:
            await asyncio.sleep(PAUSE_S)
    return left
