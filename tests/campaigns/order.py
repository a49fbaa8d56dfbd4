"""Strict order under load: producers and consumers at once on one topic, a ready queue far smaller than the backlog,
judged by `history`.

python -m tests.campaigns.order --messages 200000
"""

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from mqueue import wire
from mqueue.client import AsyncClient
from tests.processes.broker import Broker

from .campaign import finish, options, table
from .judging.history import Delivery, Fetch, History, Key, Verdict, judge

TOPIC = "order"
PRODUCERS = CONSUMERS = 4
READY_MAX = 500
DELAYED, NACKED = 0.2, 0.02  # shares
BATCH = 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Campaign:
    """`head_start`: the share of the messages enqueued before the first fetch, so that PostgreSQL holds a backlog."""

    messages: int
    seed: int = 1
    head_start: float = 0.3
    batch: int = 100
    delay_s: float = 3.0  # at most
    timeout_s: float = 600.0


async def run(campaign: Campaign, url: str, token: str) -> History:
    """Ends when all is acked; past the timeout what is missing counts as lost."""
    history = History(epoch=time.time() - time.monotonic())
    with suppress(TimeoutError):
        async with AsyncClient(url, token, retries=False) as client, asyncio.timeout(campaign.timeout_s):
            await _run(campaign, client, history)
    return history


async def _run(campaign: Campaign, client: AsyncClient, history: History) -> None:
    work = _Work(campaign, client, history)
    async with asyncio.TaskGroup() as tasks:
        for n in range(PRODUCERS):
            tasks.create_task(work.produce(n))
        await work.begun.wait()
        for n in range(CONSUMERS):
            tasks.create_task(work.consume(n))


class _Work:
    def __init__(self, campaign: Campaign, client: AsyncClient, history: History) -> None:
        self._campaign, self._client, self._history = campaign, client, history
        self._left = campaign.messages
        self.begun = asyncio.Event()
        self._acked = 0

    async def produce(self, number: int) -> None:
        chance = random.Random(f"{self._campaign.seed} producer {number}")
        while self._left:
            count = min(self._left, chance.randint(1, self._campaign.batch))
            self._left -= count
            items = [self._item(chance) for _ in range(count)]
            ids = await self._client.enqueue_many(items)
            answered = time.monotonic()
            self._history.enqueued.update((id, answered) for id in ids)
            if len(self._history.enqueued) >= self._campaign.messages * self._campaign.head_start:
                self.begun.set()

    def _item(self, chance: random.Random) -> wire.EnqueueItem:
        delay = chance.random() * self._campaign.delay_s if chance.random() < DELAYED else None
        return wire.EnqueueItem(topic=TOPIC, priority=chance.randint(-9, 9), payload=b"x" * 50, delay=delay, max_retries=100)

    async def consume(self, number: int) -> None:
        chance = random.Random(f"{self._campaign.seed} consumer {number}")
        while self._acked < self._campaign.messages:
            wait = chance.choice((0.0, 0.3))
            sent = time.monotonic()
            messages = await self._client.fetch(TOPIC, limit=chance.randint(1, BATCH), wait=wait, lease=300)
            answered = time.monotonic()
            self._history.fetches.append(Fetch(sent, answered, tuple(_delivery(m) for m in messages)))
            failing = [m for m in messages if chance.random() < NACKED]
            await self._nack(failing, chance.random() * 0.3)
            await self._ack([m for m in messages if m not in failing])
            if not messages:
                await asyncio.sleep(0.01)

    async def _nack(self, messages: list[wire.Message], retry_after: float) -> None:
        if messages:
            verdicts = await self._client.nack(messages, error="on purpose", retry_after=retry_after)
            answered = time.monotonic()
            for v in verdicts:
                assert v.status == "ok", v
                self._history.nack(v.id, answered, answered + retry_after)

    async def _ack(self, messages: list[wire.Message]) -> None:
        if messages:
            for v in await self._client.ack(messages):
                assert v.status == "ok", v
                self._history.acked[v.id] += 1
                self._acked += 1


def _delivery(m: wire.Message) -> Delivery:
    due = m.deliver_after - EPOCH
    return Delivery(Key(m.priority, (due.days * 86400 + due.seconds) * 1_000_000 + due.microseconds, m.id), m.attempt)


def report(campaign: Campaign, history: History, verdict: Verdict, seconds: float, broker: Broker) -> list[str]:
    got = sum(len(f.got) for f in history.fetches)
    rows = {
        "messages": campaign.messages,
        "deliveries": got,
        "fetches": len(history.fetches),
        "empty answers": sum(not f.got for f in history.fetches),
        "nacks": sum(map(len, history.nacked.values())),
        "seconds": round(seconds, 1),
        "deliveries a second": round(got / seconds),
        "refills": int(broker.metric("mqueue_refill_total")),
        "rows refilled": int(broker.metric("mqueue_refill_rows_total")),
        **verdict.counts(),
    }
    return table(rows)


def main() -> int:
    given = options(__doc__, messages=200_000, seed=1, ready_max=READY_MAX)
    campaign = Campaign(given.messages, given.seed, timeout_s=120 + given.messages / 100)
    with Broker(env={"MQUEUE_READY_MAX": str(given.ready_max)}) as broker:
        began = time.monotonic()
        history = asyncio.run(run(campaign, broker.url, broker.token))
        seconds = time.monotonic() - began
        verdict = judge(history)
        lines = report(campaign, history, verdict, seconds, broker)
    some = [f"{name} {each}" for name, found in vars(verdict).items() for each in list(found)[:3]]
    return finish(verdict.good(), lines, "the order is strict", some)


if __name__ == "__main__":
    raise SystemExit(main())
