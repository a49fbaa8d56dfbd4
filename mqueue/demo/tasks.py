"""The worker of the demo runs these tasks. Each run appends a line to RESULTS in the worker's working directory:
message id, attempt, start in µs, outcome.

A line is one `write`, so nothing is lost if the worker is killed. Where the file is not there (you run these by
hand), nothing is written.
"""

import os
import time
from functools import cache

from mqueue import current, task

TOPIC = "demo"
RESULTS = "demo-results.txt"


@task(topic=TOPIC)
async def greet(name: str) -> None:
    """It runs on the event loop, and does nothing else."""
    note("done")


@task(topic=TOPIC)
def resize(width: int, height: int) -> None:
    """It runs in a thread, where it may block."""
    time.sleep(0.005)
    note("done")


@task(topic=TOPIC)
async def flaky(name: str) -> None:
    """It fails once, is tried again about a second later, and then works."""
    if current().attempt == 1:
        note("failed")
        raise ConnectionError("no answer the first time")
    note("done")


@task(topic=TOPIC, max_retries=1)
async def doomed(name: str) -> None:
    """It always fails: after its one retry it becomes a dead letter."""
    note("failed")
    raise ValueError(f"{name} cannot be done")


def note(outcome: str) -> None:
    job = current()
    if (file := _results()) is not None:
        os.write(file, f"{job.id} {job.attempt} {time.time_ns() // 1000} {outcome}\n".encode())


@cache
def _results() -> int | None:
    try:
        return os.open(RESULTS, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return None
