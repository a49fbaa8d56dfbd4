"""A worker that waits on a topic that nobody has put anything into is served as soon as somebody does, at whichever
broker; and Redis keeps nothing of the topic when the worker is gone.
"""

import asyncio
from pathlib import Path

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET
from tests.waiting import until

SERVED_S = 5.0
FORGOTTEN_S = 60.0  # a turn comes every 15 s
WAIT_S = 30.0  # of the long poll: longer than such a topic is kept


async def test_the_first_message_reaches_who_has_waited_long(data_dir: Path) -> None:
    settings = {"MQUEUE_TOPIC_IDLE_S": "1"}  # it is forgotten whenever nobody has asked for a second
    async with (
        Stage(data_dir, 1, 2, SECRET, settings) as stage,
        AsyncClient(stage.brokers[0].url, stage.token, timeout=2 * WAIT_S) as worker,
        AsyncClient(stage.brokers[1].url, stage.token, timeout=10.0) as producer,
    ):
        await stage.settled()
        waiting = asyncio.create_task(worker.fetch([f"new-{n}" for n in range(20)], wait=WAIT_S))
        began = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() - began > WAIT_S * 0.6, "it has waited long", WAIT_S)
        assert not waiting.done()
        ids = await producer.enqueue_many([wire.EnqueueItem(topic="new-7", payload=b"x")])
        async with asyncio.timeout(SERVED_S):
            [m] = await waiting
        assert m.id == ids[0]
        await worker.ack([m])
        assert {t.topic for t in await producer.topics()} <= {f"new-{n}" for n in range(20)}

        async def topics() -> set[str]:
            return {t.topic for t in await producer.topics()}

        await until(topics, "only what was put into is known", FORGOTTEN_S, enough=lambda known: known == {"new-7"})
