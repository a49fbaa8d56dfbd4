"""What a call costs Redis, in commands: whatever the machine, and however busy it is. A ceiling is what it was when it
was written down; who needs more says why.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.scripts import Life, own_valkey
from mqueue.broker.cache.ready import ReadyCache

# commands within the script, and the call itself
LONE_ENQUEUE, LONE_FETCH, LONE_ACK = 11, 13, 12
BATCH = 100
BATCH_MORE = 0  # than a lone one
TICK_WHEN_NOTHING_IS_DUE = 5
FLUSH = 23  # of a batch: two calls


async def test_commands_of_a_call(data_dir: Path) -> None:
    async with own_valkey(data_dir) as (url, client):
        cache = ReadyCache(0, url)
        life = Life(cache)
        await life.begin()
        await life.tick()
        for first in (True, False):  # the first one loads the library, and makes the topic
            counts = await counted(client, life)
            if first:
                continue
            assert counts["enqueue"] <= LONE_ENQUEUE, counts
            assert counts["fetch"] <= LONE_FETCH, counts
            assert counts["ack"] <= LONE_ACK, counts
            assert counts["enqueue a batch"] <= LONE_ENQUEUE + BATCH_MORE, counts
            assert counts["fetch a batch"] <= LONE_FETCH + BATCH_MORE, counts
            assert counts["ack a batch"] <= LONE_ACK + BATCH_MORE, counts
            assert counts["tick"] <= TICK_WHEN_NOTHING_IS_DUE, counts
            assert counts["flush"] <= FLUSH, counts
        await cache.close()


async def counted(client: Any, life: Life) -> dict[str, int]:
    counts: dict[str, int] = {}

    async def count(what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        before = await commands(client)
        got = await call()
        counts[what] = await commands(client) - before
        return got

    await count("enqueue", lambda: life.enqueue(1))
    one = await count("fetch", lambda: life.fetch(1))
    await count("ack", lambda: life.ack(one))
    await count("enqueue a batch", lambda: life.enqueue(BATCH))
    await count("flush", life.flush)
    many = await count("fetch a batch", lambda: life.fetch(BATCH))
    await count("ack a batch", lambda: life.ack(many))
    await life.flush()
    await count("tick", life.tick)
    return counts


async def commands(client: Any) -> int:
    """All but the looks at this."""
    stats = await client.info("commandstats")
    return sum(told["calls"] for name, told in stats.items() if name != "cmdstat_info")
