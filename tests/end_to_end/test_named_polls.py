"""A poll that waits is ended by name: what it has leased by then it brings, and nothing is leased for nobody."""

import asyncio
import random
import time
from uuid import uuid4

from mqueue import wire
from mqueue.client import AsyncClient

from .broker import Broker

TIMES = 60


async def test_a_poll_ended_amid_an_enqueue_costs_no_attempt() -> None:
    chance = random.Random(7)
    with Broker() as broker:
        async with AsyncClient(broker.url, broker.token) as client:
            idle = asyncio.create_task(client.poll(wire.Poll(topics=["t"], limit=1, wait=30, name="idle")))
            while not broker.metric("mqueue_waiting_fetches"):
                await asyncio.sleep(0.01)
            await client.poll(wire.Poll(namespace="another", end=["idle"]))
            await client.poll(wire.Poll(end=["nobody"]))
            assert not idle.done()
            began = time.monotonic()
            await client.poll(wire.Poll(end=["idle"]))
            assert (await idle).messages == []
            assert time.monotonic() - began < 15
            brought = 0
            for _ in range(TIMES):
                name = uuid4().hex
                waiting = asyncio.create_task(client.poll(wire.Poll(topics=["t"], limit=1, wait=30, name=name)))
                await asyncio.sleep(0.002)
                ids = asyncio.create_task(client.enqueue("t", b""))
                await asyncio.sleep(chance.random() * 0.004)
                while not waiting.done():
                    await client.poll(wire.Poll(end=[name]))
                messages = waiting.result().messages
                brought += len(messages)
                messages = messages or (await client.poll(wire.Poll(topics=["t"], limit=1, wait=5))).messages
                assert [(message.id, message.attempt) for message in messages] == [(await ids, 1)]
                await client.ack(messages)
            assert brought, "the two never met"
