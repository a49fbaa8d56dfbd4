"""A scene is a stage under load: what goes on while something is done to it, and how it ends."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol, TypeVar

from mqueue.clock import SystemClock
from mqueue.errors import MQueueError
from mqueue.launch import home
from mqueue.torture.history import History
from mqueue.torture.load import Load
from mqueue.torture.stage import Stage

SHARDS, BROKERS = 2, 2
SETTINGS = {"MQUEUE_READY_MAX": "100", "MQUEUE_LEASE_S": "2", "MQUEUE_LOG_LEVEL": "info"}
PRODUCERS, WORKERS = 4, 6
STUCK_S = 45.0

L = TypeVar("L", bound=Load)


class Audited(Protocol):
    """It knows the topics whose ledger does not add up, and by how much."""

    async def drift(self) -> dict[str, int]: ...


def new_history() -> History:
    return History(epoch=SystemClock().wall_us() / 1e6 - time.monotonic())


@asynccontextmanager
async def staged(
    make_load: Callable[[Sequence[str], str], L], shards: int = SHARDS, brokers: int = BROKERS, settings: Mapping[str, str] = SETTINGS
) -> AsyncIterator[tuple[Stage, L]]:
    """Yields stores and brokers in a temporary folder, and a load on them that has not begun. `make_load` makes it from
    the brokers' URLs and a token.
    """
    with home() as folder:
        async with (
            Stage(folder, shards, brokers, secrets.token_hex(24), dict(settings)) as stage,
            aclosing(make_load([broker.url for broker in stage.brokers], stage.token)) as load,
        ):
            yield stage, load


@asynccontextmanager
async def under_load(stage: Audited, load: Load, producers: int = PRODUCERS, workers: int = WORKERS) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Yields the workers' tasks. Afterwards all is drained, and the history has what is left, the dead letters
    and the ledgers' drift.
    """
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
    """Waits until nothing is left, or nothing has been acked for STUCK_S."""
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
