"""PostgreSQL forgets what it has said to be committed, as where a disk lied: its files are those of a moment ago, its
timeline as it was. The brokers' logs have what it lacks.
"""

import asyncio
import random
import shutil
import subprocess
import time
from typing import LiteralString

from mqueue.torture.damage import Damage
from mqueue.torture.stage import Stage

WAIT_S = 20.0  # within which a flush comes after PostgreSQL was away, or its going back is noticed
PAUSE_S = 0.1
EPOCHS = "SELECT epoch FROM shard"
FLUSHED = "SELECT dirty_number FROM shard"


async def postgres_forgets(stage: Stage, chance: random.Random) -> Damage:
    """It forgets some seconds, and is away twice for the moment that a copy takes."""
    files = stage.postgres_files
    kept = files.with_name("kept")
    async with stage.without_postgres():
        await asyncio.to_thread(subprocess.check_call, ["cp", "-a", str(files), str(kept)])
    epochs, flushed = await stage.tell_postgres(EPOCHS), await stage.tell_postgres(FLUSHED)
    await _other(stage, FLUSHED, flushed)  # so that there is something to forget
    await asyncio.sleep(chance.random() * 3)
    async with stage.without_postgres():
        await asyncio.to_thread(shutil.rmtree, files)
        kept.rename(files)
    # the next epoch begins with what PostgreSQL and the logs have
    return Damage(lost=True, reached=await _other(stage, EPOCHS, epochs))


async def _other(stage: Stage, statement: LiteralString, than: list[int]) -> bool:
    """Returns whether the shards give another answer in time."""
    deadline = time.monotonic() + WAIT_S
    while await stage.tell_postgres(statement) == than:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(PAUSE_S)
    return True
