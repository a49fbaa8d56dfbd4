"""The worker runs these tasks."""

import os
import time
from functools import cache

from mqueue import task

DRAIN, LATENCY, CORES = "drain", "latency", "cores"
CRUNCH_S = 0.1  # about
STAMPS = "stamps.txt"  # in the worker's working directory


@task(topic=DRAIN)
async def nothing() -> None:
    pass


@task(topic=CORES, executor="process")
def crunch() -> None:
    sum(number * number for number in range(1_200_000))


@task(topic=LATENCY)
async def stamp(sent_ns: int) -> None:
    """It notes how long ago it was sent, in nanoseconds; the clock is the same in all processes."""
    os.write(_stamps(), f"{time.monotonic_ns() - sent_ns}\n".encode())


@cache
def _stamps() -> int:
    return os.open(STAMPS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
