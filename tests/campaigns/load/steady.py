"""Two brokers under a load that the workers keep up with: what is measured then is not how a backlog grows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mqueue.torture.history import History
from mqueue.torture.load import Load
from mqueue.torture.scene import staged, under_load
from mqueue.torture.stage import Stage

PRODUCERS, WORKERS = 2, 16
BEGIN_S = 1.0


@asynccontextmanager
async def steady(history: History, calm_s: float, seed: int) -> AsyncIterator[Stage]:
    """Yields once the load has gone on for `calm_s`; it goes on meanwhile. Afterwards all is drained."""
    async with (
        staged(lambda urls, token: Load(history, urls, token, seed)) as (stage, load),
        under_load(stage, load, PRODUCERS, WORKERS),
    ):
        await asyncio.sleep(BEGIN_S + calm_s)
        yield stage
