"""This benchmark measures milliseconds from the call of enqueue to the start of the job when there is nothing else to
do. HTTP, fsync, wake and fetch are included.
"""

import asyncio
import time

from benchmarks import tasks
from benchmarks.row import Row, percentile
from benchmarks.setting import Setting, until

JOBS = 300
WARM = 30
RUNS = 3
APART_S = 0.005


async def run(place: Setting, runs: int = RUNS) -> list[Row]:
    with place.worker():
        until(lambda: place.metric("mqueue_waiting_fetches") > 0, "the worker")
        await _measure(place, WARM)
        measured = [await _measure(place, JOBS) for _ in range(runs)]
    return [
        Row("latency", "enqueue to start, p50", "ms", [percentile(run, 0.5) for run in measured], 3.0, more_is_better=False),
        Row("latency", "enqueue to start, p99", "ms", [percentile(run, 0.99) for run in measured]),
    ]


async def _measure(place: Setting, jobs: int) -> list[float]:
    stamps = place.folder / tasks.STAMPS
    stamps.write_text("")
    for _ in range(jobs):
        await place.client.enqueue_many([tasks.stamp.message(time.monotonic_ns())])
        await asyncio.sleep(APART_S)
    until(lambda: stamps.read_text().count("\n") >= jobs, "the last job")
    return [int(line) / 1e6 for line in stamps.read_text().splitlines()]
