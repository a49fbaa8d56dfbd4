"""This benchmark counts enqueues a second: by one caller, in batches, by many producers, and for so long that the flush
to PostgreSQL sets the pace.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import count

from benchmarks.row import Row
from benchmarks.setting import Setting, until
from mqueue import wire

SECONDS = 2.0
SUSTAINED_S = 20.0
RUNS = 5
PAYLOAD = b'{"task":"mail.send","args":["ada@example.org","Hello"],"kwargs":{}}'
AT_ONCE = 16  # producers with one message a call
BATCHES_AT_ONCE = 4  # producers with a batch a call

Send = Callable[[str], Awaitable[int]]


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    topics = count()

    async def measured(what: str, producers: int, batch: int, target: float | None, seconds: float = SECONDS, times: int = runs) -> Row:
        rates = []
        for _ in range(times):
            await asyncio.to_thread(until, lambda: place.metric("mqueue_buffer_queue_depth") == 0, "the run before is flushed")
            rates.append(await _rate(place, f"t{next(topics)}", producers, batch, seconds))
        return Row("enqueue", what, "messages/s", rates, target)

    return [
        await measured("one call at a time", 1, 1, None),
        await measured(f"{AT_ONCE} at once, one message a call", AT_ONCE, 1, 3_000),
        await measured(f"batches of 100, {BATCHES_AT_ONCE} at once", BATCHES_AT_ONCE, 100, 30_000),
        await measured(f"batches of 1,000, {BATCHES_AT_ONCE} at once", BATCHES_AT_ONCE, 1_000, 30_000),
        await measured(f"the same for {SUSTAINED_S:g} s, with its flush", BATCHES_AT_ONCE, 1_000, None, SUSTAINED_S, 1),
    ]


async def _rate(place: Setting, topic: str, producers: int, batch: int, seconds: float) -> float:
    items = [wire.EnqueueItem(topic=topic, payload=PAYLOAD) for _ in range(batch)]
    began = time.perf_counter()
    ends = began + seconds

    async def produce() -> int:
        sent = 0
        while time.perf_counter() < ends:
            sent += len(await place.client.enqueue_many(items))
        return sent

    sent = sum(await asyncio.gather(*(produce() for _ in range(producers))))
    return sent / (time.perf_counter() - began)
