"""Many rows wait in PostgreSQL for a time that is far: other topics, views and the leader's steps hardly notice.

    python -m tests.campaigns.delayed --rows 10000000 --firsts 500

The rows are those of ten topics, put there by SQL, and due in an hour and later; the ten have traffic besides. Redis is
emptied, then other topics, of one message each, are fetched for the first time, one after the other, while the leader
reconciles and audits. PostgreSQL's log tells which statements took long.
"""

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import MQueueError
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET

from .campaign import finish, options, table

BULK = [f"bulk-{n}" for n in range(10)]
PART = 200_000  # rows of one statement
PAUSE_S = 0.2  # between two first fetches: all of them take longer than a round of the reconciler
PAGE = 500
GIVE_UP_S = 10.0
P99_S = 0.1
STEP_S = 0.5  # no statement of the leader, nor a view, takes longer
LOGGED_MS = 50  # statements that take longer are in PostgreSQL's log
FILL = """
INSERT INTO message (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                     created_at_us, payload)
SELECT n, %(topic)s, n %% 5, 0, %(due)s + n * 100, 0, 3, 1, 30000, 1, n, n, '\\x78' FROM generate_series(%(first)s::bigint, %(last)s) n
"""
SLOW = re.compile(r"duration: ([\d.]+) ms .*?-- (\w+):", re.DOTALL)


@dataclass
class Found:
    """`firsts_s`: first fetches, until the message was there. `views_s`: `GET /topics`. `ready_s`: `GET /ready`.
    `slow_s`: the longest of each statement that took more than LOGGED_MS, by its name.
    """

    rows: int
    firsts: int
    firsts_s: list[float] = field(default_factory=list)
    views_s: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    slow_s: dict[str, float] = field(default_factory=dict)

    def p99_s(self) -> float:
        return sorted(self.firsts_s)[int(0.99 * (len(self.firsts_s) - 1))] if self.firsts_s else float("inf")

    def good(self, p99_s: float = P99_S, step_s: float = STEP_S) -> bool:
        all_there = len(self.firsts_s) == self.firsts
        return all_there and self.p99_s() <= p99_s and max((*self.slow_s.values(), *self.views_s), default=0.0) <= step_s


async def run(rows: int, firsts: int) -> Found:
    found = Found(rows, firsts)
    names = [f"first-{n}" for n in range(firsts)]
    with tempfile.TemporaryDirectory(prefix="mq-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        async with Stage(Path(folder), 1, 1, SECRET, {}) as stage:
            async with AsyncClient(stage.brokers[0].url, stage.token, retries=False, timeout=30.0) as client:
                for at in range(0, firsts, PAGE):
                    items = [wire.EnqueueItem(topic=name, payload=b"1") for name in names[at : at + PAGE]]
                    await client.enqueue_many(items, durability="postgres")
                await client.enqueue_many([wire.EnqueueItem(topic=name, payload=b"1") for name in BULK], durability="postgres")
                await asyncio.to_thread(_fill, stage.urls.database_urls[0], rows)
                await stage.flush_redis()
                await asyncio.sleep(0.5)
                await stage.settled()
                works = (
                    lambda: _traffic(client),
                    lambda: _timed(client.topics, found.views_s),
                    lambda: _timed(client.ready, found.ready_s),
                )
                beside = [asyncio.create_task(_again(work)) for work in works]
                try:
                    for name in names:
                        found.firsts_s.append(await _first(client, name))
                        await asyncio.sleep(PAUSE_S)
                finally:
                    for task in beside:
                        task.cancel()
                    await asyncio.gather(*beside, return_exceptions=True)
            [log] = Path(folder).rglob("postgresql.log")
            found.slow_s = _slow(log.read_text())
    return found


def _fill(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        ids: dict[str, int] = dict(connection.execute("SELECT name, id FROM topic WHERE name LIKE 'bulk-%'").fetchall())
        due = int((time.time() + 3600) * 1e6)
        each = rows // len(BULK)
        for number, name in enumerate(BULK):
            for first in range(number * each + 1, (number + 1) * each + 1, PART):
                last = min(first + PART - 1, (number + 1) * each)
                connection.execute(FILL, {"topic": ids[name], "due": due, "first": first, "last": last})
                connection.execute("UPDATE topic SET enqueued = enqueued + %s WHERE id = %s", (last - first + 1, ids[name]))
                print(f"\r{last:,} of {rows:,} rows", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        connection.execute("VACUUM ANALYZE message")
        connection.execute("CHECKPOINT")
        connection.execute(f"ALTER SYSTEM SET log_min_duration_statement = {LOGGED_MS:d}")
        connection.execute("SELECT pg_reload_conf()")


async def _first(client: AsyncClient, name: str) -> float:
    """How long it takes until the message is there."""
    began = time.monotonic()
    while time.monotonic() < began + GIVE_UP_S:
        with suppress(MQueueError):
            if got := await client.fetch(name, limit=1):
                took = time.monotonic() - began
                await client.ack(got)
                return took
    raise TimeoutError(f"{name} was not served within {GIVE_UP_S:g} s")


async def _again(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        with suppress(MQueueError):
            await work()
        await asyncio.sleep(0.1)


async def _traffic(client: AsyncClient) -> None:
    """The many have messages that are due, too."""
    await client.enqueue_many([wire.EnqueueItem(topic=name, payload=b"1") for name in BULK])
    if got := await client.fetch(BULK, limit=2 * len(BULK)):
        await client.ack(got)


async def _timed(call: Callable[[], Awaitable[object]], times: list[float]) -> None:
    began = time.monotonic()
    await call()
    times.append(time.monotonic() - began)


def _slow(log: str) -> dict[str, float]:
    slow: dict[str, float] = {}
    for took, name in SLOW.findall(log):
        slow[name] = max(slow.get(name, 0.0), float(took) / 1000)
    return slow


def report(found: Found) -> list[str]:
    slow = {f"slowest {name}, ms": f"{1000 * took:.0f}" for name, took in sorted(found.slow_s.items())}
    return table(
        {
            "delayed rows": found.rows,
            "first fetches": len(found.firsts_s),
            "first fetch: p99, ms": f"{1000 * found.p99_s():.1f}",
            "first fetch: slowest, ms": f"{1000 * max(found.firsts_s, default=0.0):.1f}",
            "views of all topics": len(found.views_s),
            "view: slowest, ms": f"{1000 * max(found.views_s, default=0.0):.1f}",
            "ready: slowest, ms": f"{1000 * max(found.ready_s, default=0.0):.1f}",
        }
        | slow
    )


def main() -> int:
    given = options(__doc__, rows=10_000_000, firsts=500)
    found = asyncio.run(run(given.rows, given.firsts))
    claim = f"first fetch p99 <= {1000 * P99_S:g} ms, no view and no statement of more than {1000 * STEP_S:g} ms"
    return finish(found.good(), report(found), claim)


if __name__ == "__main__":
    raise SystemExit(main())
