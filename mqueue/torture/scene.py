"""A stage under load: what goes on while something is done to it, and how it ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mqueue.clock import SystemClock
from mqueue.errors import MQueueError
from mqueue.torture.history import History
from mqueue.torture.load import Load
from mqueue.torture.stage import Stage

PRODUCERS, WORKERS = 4, 6
STUCK_S = 45.0


def new_history() -> History:
    return History(epoch=SystemClock().wall_us() / 1e6 - time.monotonic())


@asynccontextmanager
async def under_load(stage: Stage, load: Load, producers: int = PRODUCERS, workers: int = WORKERS) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Yields the workers' tasks. Afterwards all is drained, and the history has what is left, the dead letters and the ledgers' drift."""
    producing = [asyncio.create_task(load.produce(n)) for n in range(producers)]
    working = [asyncio.create_task(load.work(n)) for n in range(workers)]
    try:
        yield working
        load.draining = True
        await asyncio.gather(*producing)
        await _drain(load)
        for task in working:
            if task.done():
                task.result()  # a worker that ended by itself: why
        load.history.dead = await load.dead()
        load.history.drift = await stage.drift()
    finally:
        for task in (*producing, *working):
            task.cancel()
        await asyncio.gather(*producing, *working, return_exceptions=True)


async def _drain(load: Load) -> None:
    """Until nothing is left, or nothing has been acked for STUCK_S."""
    acked, since = load.acked, time.monotonic()
    while time.monotonic() < since + STUCK_S:
        try:
            load.history.left = await load.left()
        except MQueueError:  # asked again, as anybody would
            await asyncio.sleep(0.5)
            continue
        if not any(load.history.left.values()):
            return
        if load.acked > acked:
            acked, since = load.acked, time.monotonic()
        await asyncio.sleep(0.5)
