"""The demo queues a pure plan of jobs in batches, and some jobs one at a time once the queue is empty."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mqueue import wire
from mqueue.client import Client
from mqueue.demo import tasks

JOBS = 10_000
SINGLES = 100  # of them: queued one at a time into an empty queue, to see how soon a worker starts on one
DOOMED = 20
FLAKY = 200
RESIZE = 300
DELAYED = 500
DELAY_S = (0.5, 3.0)
PRIORITIES = (1, 5, 9)  # lower comes first
BATCH = 250
SINGLES_APART_S = 0.003


@dataclass(frozen=True, slots=True)
class Queued:
    """It is one job of ours: what it is, and when it could have started at the earliest (µs since 1970)."""

    kind: str
    priority: int
    delayed: bool
    due_us: int


def plan(jobs: int, chance: random.Random) -> list[tuple[str, wire.EnqueueItem]]:
    """Returns `jobs` jobs as (kind, item), all mixed. Smaller demos have fewer of each kind."""

    def share(count: int) -> int:
        return max(1, count * jobs // JOBS)

    kinds = ["doomed"] * share(DOOMED) + ["flaky"] * share(FLAKY) + ["resize"] * share(RESIZE) + ["delayed"] * share(DELAYED)
    kinds += ["greet"] * (jobs - len(kinds))
    chance.shuffle(kinds)
    return [(kind, _item(kind, number, chance)) for number, kind in enumerate(kinds)]


def _item(kind: str, number: int, chance: random.Random) -> wire.EnqueueItem:
    priority, name = chance.choice(PRIORITIES), f"job {number}"
    match kind:
        case "doomed":
            return tasks.doomed.options(priority=priority).message(name)
        case "flaky":
            return tasks.flaky.options(priority=priority).message(name)
        case "resize":
            return tasks.resize.options(priority=priority).message(640, 480)
        case "delayed":
            return tasks.greet.options(priority=priority, delay=round(chance.uniform(*DELAY_S), 3)).message(name)
    return tasks.greet.options(priority=priority).message(name)


def enqueue(client: Client, planned: Sequence[tuple[str, wire.EnqueueItem]], step: Callable[[int], None]) -> dict[int, Queued]:
    """Queue them in batches, and return what was queued, by id. `step(how many)` is called after each batch."""
    queued: dict[int, Queued] = {}
    for start in range(0, len(planned), BATCH):
        part = planned[start : start + BATCH]
        sent_us = time.time_ns() // 1000
        ids = client.enqueue_many([item for _, item in part])
        for id, (kind, item) in zip(ids, part, strict=True):
            queued[id] = Queued(kind, item.priority, item.delay is not None, sent_us + int((item.delay or 0) * 1e6))
        step(len(queued))
    return queued


def enqueue_singly(client: Client, count: int) -> dict[int, Queued]:
    """Queue them one at a time, a little apart."""
    queued: dict[int, Queued] = {}
    for number in range(count):
        sent_us = time.time_ns() // 1000
        [id] = client.enqueue_many([tasks.greet.message(f"single {number}")])
        queued[id] = Queued("single", 0, False, sent_us)
        time.sleep(SINGLES_APART_S)
    return queued
