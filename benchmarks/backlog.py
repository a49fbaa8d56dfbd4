"""This benchmark shows whether fetches slow down and memory grows with a deep queue."""

import asyncio
import random
import time

from benchmarks.row import Row
from benchmarks.setting import Setting, until
from mqueue import wire

MESSAGES = 1_000_000
SHALLOW = 10_000
FETCHED = 10_000
PAGE = 1_000
RUNS = 5
PRODUCERS = 2
LOOK_S = 0.2
MB = 1e6


async def run(place: Setting, messages: int = MESSAGES, runs: int = RUNS) -> list[Row]:
    shallow = []
    for number in range(runs):
        await _fill(place, f"shallow-{number}", SHALLOW)
        shallow.append(await _fetch(place, f"shallow-{number}"))
    peaks = Peaks(place)
    watching = asyncio.create_task(peaks.watch())
    began = time.perf_counter()
    await _fill(place, "deep", messages)
    filled = time.perf_counter() - began
    deep = [await _fetch(place, "deep") for _ in range(runs)]
    watching.cancel()
    depth = f"{messages:,} waiting"
    return [
        Row("backlog", f"fetch {FETCHED:,} of {SHALLOW:,} waiting", "messages/s", shallow),
        Row("backlog", f"fetch {FETCHED:,} of {depth}", "messages/s", deep),
        Row("backlog", f"enqueue until {depth}", "messages/s", [messages / filled]),
        Row("backlog", f"Redis used_memory, most, {depth}", "MB", [peaks.redis / MB], 100, more_is_better=False),
        Row("backlog", f"broker RSS, most, {depth}", "MB", [peaks.broker / MB], 300, more_is_better=False),
    ]


class Peaks:
    """It keeps the most memory seen, in bytes."""

    def __init__(self, place: Setting) -> None:
        self._place = place
        self.redis = self.broker = 0

    async def watch(self) -> None:
        while True:
            self.redis = max(self.redis, await asyncio.to_thread(self._place.redis_bytes))
            self.broker = max(self.broker, self._place.broker_bytes())
            await asyncio.sleep(LOOK_S)


async def _fill(place: Setting, topic: str, messages: int) -> None:
    batches = iter(range(messages // PAGE))

    async def produce() -> None:
        for _ in batches:
            items = [wire.EnqueueItem(topic=topic, priority=random.randrange(100), payload=b"x" * 100) for _ in range(PAGE)]
            await place.client.enqueue_many(items)

    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))


async def _fetch(place: Setting, topic: str) -> float:
    """Returns the messages fetched a second, of FETCHED messages in pages. It waits until what came before is flushed;
    the acks are not measured.
    """
    await asyncio.to_thread(until, lambda: place.metric("mqueue_buffer_queue_depth") == 0, "what came before is flushed")
    fetched: list[wire.Message] = []
    began = time.perf_counter()
    while len(fetched) < FETCHED:
        page = await place.client.fetch(topic, limit=min(PAGE, FETCHED - len(fetched)), lease=300)
        if not page:
            raise RuntimeError(f"the queue is empty after {len(fetched):,} messages")
        fetched += page
    took = time.perf_counter() - began
    await place.client.ack(fetched)
    return len(fetched) / took
