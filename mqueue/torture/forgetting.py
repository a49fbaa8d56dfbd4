"""PostgreSQL forgets what it has said to be committed, as where a disk lied: its files are those of a moment ago, its
timeline as it was. The brokers' logs have what it lacks.
"""

import asyncio
import random
import shutil
import subprocess
import time

from mqueue.torture.damage import Damage
from mqueue.torture.stage import Stage

FLUSHED_S = 20.0  # within which a flush comes after PostgreSQL was away
PAUSE_S = 0.1


async def postgres_forgets(stage: Stage, chance: random.Random) -> Damage:
    """It forgets some seconds, and is away twice for the moment that a copy takes."""
    files = stage.postgres_files
    kept = files.with_name("kept")
    before = [await stage.metric(broker, "mqueue_epoch") for broker in stage.brokers]
    async with stage.without_postgres():
        await asyncio.to_thread(subprocess.check_call, ["cp", "-a", str(files), str(kept)])
    flushed = await _enqueued(stage)
    deadline = time.monotonic() + FLUSHED_S
    while await _enqueued(stage) == flushed and time.monotonic() < deadline:  # there must be something to forget
        await asyncio.sleep(PAUSE_S)
    await asyncio.sleep(chance.random() * 3)
    async with stage.without_postgres():
        await asyncio.to_thread(shutil.rmtree, files)
        kept.rename(files)
    await stage.settled()
    after = [await stage.metric(broker, "mqueue_epoch") for broker in stage.brokers]
    return Damage(lost=True, reached=before != after)  # the next epoch begins with what PostgreSQL and the logs have


async def _enqueued(stage: Stage) -> int:
    """Returns how many messages PostgreSQL has ever had."""
    return sum(await stage.tell_postgres("SELECT enqueued FROM topic"))
