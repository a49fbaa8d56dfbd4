"""A load at a fixed rate on one topic, in batches; the workers fetch what is there and ack it."""

import asyncio
import random
import time
from collections.abc import Sequence

from mqueue import wire
from mqueue.torture.history import History
from mqueue.torture.load import Load

TOPIC = "paced"
BATCH = 20
WAIT_S = 0.5
BEHIND_S = 1.0  # what a producer was kept from for longer it does not make up for
PAUSE_S = 0.02


class Paced(Load):
    """`rate`: messages a second, of all `producers` together."""

    def __init__(self, history: History, urls: Sequence[str], token: str, rate: float, producers: int) -> None:
        super().__init__(history, urls, token, seed=1)
        self._brokers = len(urls)
        self._every_s = producers * BATCH / rate

    async def produce(self, number: int) -> None:
        chance, made, at = random.Random(f"producer {number}"), 0, time.monotonic()
        while not self.draining:
            items = [
                wire.EnqueueItem(topic=TOPIC, payload=b"%d %-100d" % (number, made + n), priority=chance.randint(0, 3), max_retries=1000)
                for n in range(BATCH)
            ]
            await self.enqueue(chance.randrange(self._brokers), items)
            made += BATCH
            at = max(at + self._every_s, time.monotonic() - BEHIND_S)
            await asyncio.sleep(max(0.0, at - time.monotonic()))

    async def work(self, number: int) -> None:
        chance = random.Random(f"worker {number}")
        while True:
            messages = await self.fetch(chance.randrange(self._brokers), (TOPIC,), BATCH, WAIT_S)
            if messages:
                await self.settle("ack", chance.randrange(self._brokers), messages)
            else:
                await asyncio.sleep(PAUSE_S)
