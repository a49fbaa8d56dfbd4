"""This benchmark counts jobs a second: one worker process empties a queue of jobs that do nothing, with 100 slots and
with 500.
"""

import time

from benchmarks import tasks
from benchmarks.row import Row
from benchmarks.setting import Setting, until

JOBS = 30_000
RUNS = 3
BATCH = 1_000
LOOK_S = 0.05
CONCURRENCIES = (100, 500)


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    """The measurements take turns, so that other work on the machine affects both alike."""
    rates: dict[int, list[float]] = {concurrency: [] for concurrency in CONCURRENCIES}
    for _ in range(runs):
        for concurrency, of_it in rates.items():
            of_it.append(await _rate(place, concurrency))
    return [Row("drain", f"one worker process, {many} slots, async def", "jobs/s", of_it, 10_000) for many, of_it in rates.items()]


async def _rate(place: Setting, concurrency: int) -> float:
    """Returns jobs a second, from the first ack seen to the last: the worker's start is not counted, its fetches and
    acks are.
    """
    before = place.metric("mqueue_ack_total")
    for _ in range(JOBS // BATCH):
        await place.client.enqueue_many([tasks.nothing.message() for _ in range(BATCH)])
    with place.worker(concurrency):
        until(lambda: place.metric("mqueue_ack_total") > before, "the first job", LOOK_S / 5)
        first, began = place.metric("mqueue_ack_total"), time.perf_counter()
        until(lambda: place.metric("mqueue_ack_total") >= before + JOBS, "the last job", LOOK_S)
        return (before + JOBS - first) / (time.perf_counter() - began)
