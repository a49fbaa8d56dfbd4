"""Jobs a second: one worker process, concurrency 100, empties a queue of jobs that do nothing."""

import time

from benchmarks import tasks
from benchmarks.row import Row
from benchmarks.setting import Setting, until

JOBS = 30_000
RUNS = 3
BATCH = 1_000
LOOK_S = 0.05


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    rates = [await _rate(place) for _ in range(runs)]
    return [Row("drain", "one worker process, async def", "jobs/s", rates, 10_000)]


async def _rate(place: Setting) -> float:
    """From the first ack seen to the last: the worker's start is not counted, its fetches and acks are."""
    before = place.metric("mqueue_ack_total")
    for _ in range(JOBS // BATCH):
        await place.client.enqueue_many([tasks.nothing.message() for _ in range(BATCH)])
    with place.worker():
        until(lambda: place.metric("mqueue_ack_total") > before, "the first job", LOOK_S / 5)
        first, began = place.metric("mqueue_ack_total"), time.perf_counter()
        until(lambda: place.metric("mqueue_ack_total") >= before + JOBS, "the last job", LOOK_S)
        return (before + JOBS - first) / (time.perf_counter() - began)
