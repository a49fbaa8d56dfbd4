"""`kill -9` of the broker under load, again and again; its stores go on. What was acknowledged is delivered, what was
acked stays away.

    python -m tests.campaigns.kill --rounds 200

An answer that never came says nothing: such an enqueue may exist, such an ack may have counted.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import Unavailable
from tests.processes.broker import Broker

from .campaign import finish, options, table

TOPICS = ("kill-a", "kill-b")
PRODUCERS, CONSUMERS = 16, 4
LEASE_S = 1.0
ENV = {"MQUEUE_READY_MAX": "500"}  # most of the backlog is PostgreSQL's


@dataclass
class Ledger:
    enqueued: set[int] = field(default_factory=set)  # answered
    delivered: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)  # answered
    maybe_acked: set[int] = field(default_factory=set)
    came_back: set[int] = field(default_factory=set)  # delivered after its ack was answered
    unanswered: int = 0
    restart_s: list[float] = field(default_factory=list)

    def lost(self) -> set[int]:
        return self.enqueued - self.acked - self.maybe_acked

    def good(self) -> bool:
        return not self.lost() and not self.came_back


async def run(broker: Broker, rounds: int, seed: int = 1, quiet_s: float = 20.0) -> Ledger:
    """At the end all that is there is fetched; what has not come when nothing came for `quiet_s` is lost."""
    ledger, chance = Ledger(), random.Random(seed)
    for _ in range(rounds):
        load = [asyncio.create_task(_until_cut(broker, ledger, _produce, chance.random())) for _ in range(PRODUCERS)]
        load += [asyncio.create_task(_until_cut(broker, ledger, _consume, chance.random())) for _ in range(CONSUMERS)]
        await asyncio.sleep(0.3 + chance.random())
        assert not any(task.done() for task in load), "the load ended by itself"
        broker.kill()
        await asyncio.gather(*load)
        began = time.monotonic()
        await asyncio.to_thread(broker.start)
        ledger.restart_s.append(time.monotonic() - began)
    until = time.monotonic() + quiet_s
    async with AsyncClient(broker.url, broker.token, retries=False) as client:
        left = ledger.lost()
        while left and time.monotonic() < until:
            if acked := await _consume_once(client, ledger, 500):
                until = time.monotonic() + quiet_s
                left -= acked
        await _consume_once(client, ledger, 500)  # nothing that was acked may be here
    return ledger


Step = Callable[[AsyncClient, Ledger, random.Random], Awaitable[None]]


async def _until_cut(broker: Broker, ledger: Ledger, step: Step, seed: float) -> None:
    """One client's loop, until the broker is gone. A 503 that the broker itself sent would end it early, and be
    noticed.
    """
    chance = random.Random(seed)
    async with AsyncClient(broker.url, broker.token, retries=False) as client:
        try:
            while True:
                await step(client, ledger, chance)
        except Unavailable:
            ledger.unanswered += 1


async def _produce(client: AsyncClient, ledger: Ledger, chance: random.Random) -> None:
    topic = chance.choice(TOPICS)
    items = [
        wire.EnqueueItem(
            topic=topic, payload=b"x" * 100, priority=chance.randint(0, 5), delay=chance.choice((None, 0.5)), max_retries=1000
        )
        for _ in range(chance.randint(1, 20))
    ]  # fmt: skip
    ledger.enqueued.update(await client.enqueue_many(items))


async def _consume(client: AsyncClient, ledger: Ledger, chance: random.Random) -> None:
    await _consume_once(client, ledger, chance.randint(1, 20))


async def _consume_once(client: AsyncClient, ledger: Ledger, limit: int) -> set[int]:
    """Returns what is acked now."""
    messages = await client.fetch(TOPICS, limit=limit, wait=0.5, lease=LEASE_S)
    ids = {m.id for m in messages}
    ledger.came_back |= ids & ledger.acked
    ledger.delivered |= ids
    if not messages:
        return set()
    ledger.maybe_acked |= ids
    verdicts = await client.ack(messages)
    ledger.maybe_acked -= ids
    acked = {v.id for v in verdicts if v.status != "stale"}
    ledger.acked |= acked
    return acked


def report(ledger: Ledger) -> list[str]:
    return table(
        {
            "acknowledged": len(ledger.enqueued),
            "delivered": len(ledger.delivered),
            "requests cut": ledger.unanswered,
            "restart, median, s": round(statistics.median(ledger.restart_s), 2),
            "restart, slowest, s": round(max(ledger.restart_s), 2),
            "lost": len(ledger.lost()),
            "came back after its ack": len(ledger.came_back),
        }
    )


def main() -> int:
    given = options(__doc__, rounds=200, seed=1)
    with Broker(env=ENV) as broker:
        ledger = asyncio.run(run(broker, given.rounds, given.seed))
    return finish(ledger.good(), report(ledger), "what was acknowledged is delivered, what was acked stays away")


if __name__ == "__main__":
    raise SystemExit(main())
