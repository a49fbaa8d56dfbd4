"""Producers and workers over HTTP, each at any broker that answers; all they see is written down."""

import asyncio
import random
import time
from collections.abc import Sequence
from itertools import count
from uuid import uuid4

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import InFlight, MQueueError
from mqueue.torture.history import Delivery, Enqueued, Fetch, History, Key, Settle, Window

TOPICS = ("alpha", "beta", "gamma", "delta")
LEASE_S = 2.0
CALL_S = 4.0  # a call without an answer by then counts as unanswered
PAUSE_S = 0.02
RATE_S = 0.04  # a producer's pause between two requests
RETRIES = 1_000
POISONED = 0.01  # messages that every worker nacks
POISON_RETRIES = 2
RETRY_S = 20.0  # a keyed request without an answer is sent again so long


class Load:
    def __init__(self, history: History, urls: Sequence[str], token: str, seed: int) -> None:
        self._history = history
        self._clients = [AsyncClient(url, token, retries=False, timeout=CALL_S) for url in urls]
        self._seed = seed
        self._numbers = count()
        self.draining = False
        self.produced = self.acked = 0

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    # -- producers -------------------------------------------------------------------------------------------------------------

    async def produce(self, number: int) -> None:
        chance = random.Random(f"{self._seed} producer {number}")
        while not self.draining:
            await self._enqueue(chance)
            await asyncio.sleep(RATE_S)

    async def _enqueue(self, chance: random.Random) -> None:
        keyed = chance.random() < 0.5
        items = [self._item(chance, keyed) for _ in range(chance.randint(1, 12))]
        self._history.sent.update(item.payload for item in items)
        until = time.monotonic() + RETRY_S
        while True:
            at = chance.randrange(len(self._clients))
            try:
                ids = await self._clients[at].enqueue_many(items)
            except InFlight:
                await asyncio.sleep(PAUSE_S)
            except MQueueError:
                if not keyed:
                    return  # it may exist; nobody counts on it
                await asyncio.sleep(PAUSE_S)
            else:
                answered = time.monotonic()
                for id, item in zip(ids, items, strict=True):
                    self._history.enqueued[id] = Enqueued(item.topic, item.payload, item.max_retries or 0, keyed, at, answered)
                self.produced += len(ids)
                return
            if time.monotonic() > until:
                return

    def _item(self, chance: random.Random, keyed: bool) -> wire.EnqueueItem:
        poisoned = chance.random() < POISONED
        number = next(self._numbers)
        return wire.EnqueueItem(
            topic=chance.choice(TOPICS), priority=chance.randint(-4, 4), payload=b"%s %d" % (b"poison" if poisoned else b"work", number),
            delay=chance.random() if chance.random() < 0.15 else None, max_retries=POISON_RETRIES if poisoned else RETRIES,
            idempotency_key=f"{number} {uuid4()}" if keyed else None,
        )  # fmt: skip

    # -- workers ---------------------------------------------------------------------------------------------------------------

    async def work(self, number: int) -> None:
        """One worker. Cancelled, it vanishes with what it has leased."""
        chance = random.Random(f"{self._seed} worker {number} {time.monotonic()}")
        while True:
            at = chance.randrange(len(self._clients))
            topics = TOPICS if self.draining or chance.random() < 0.5 else tuple(chance.sample(TOPICS, chance.randint(1, 3)))
            for delivery in await self._fetch(at, topics, chance.randint(1, 10), chance.choice((0.0, 0.4))):
                await self._treat(chance, delivery)

    async def _fetch(self, at: int, topics: tuple[str, ...], limit: int, wait: float) -> list[wire.Message]:
        sent = time.monotonic()
        answered_at_all = False
        try:
            messages = await self._clients[at].fetch(topics, limit=limit, wait=wait, lease=LEASE_S)
            answered_at_all = True
        except MQueueError:
            await asyncio.sleep(PAUSE_S)
            return []
        finally:
            if not answered_at_all:  # what it leased comes back with its lease
                self._history.unanswered.append(Window(sent, time.monotonic() + LEASE_S + 1.0, topics))
        answered = time.monotonic()
        self._history.fetches.append(Fetch(topics, at, sent, answered, tuple(self._delivery(m, sent) for m in messages)))
        if not messages:
            await asyncio.sleep(PAUSE_S)
        return messages

    def _delivery(self, m: wire.Message, sent: float) -> Delivery:
        """The lease's end by our clock: the shard's may be ahead of it."""
        until = min(m.lease_expires_at.timestamp() - self._history.epoch, sent + LEASE_S)
        return Delivery(Key(m.priority, round(m.deliver_after.timestamp() * 1e6), m.id), m.topic, m.attempt, m.payload, until)

    async def _treat(self, chance: random.Random, m: wire.Message) -> None:
        at = chance.randrange(len(self._clients))
        kind = chance.random()
        if m.payload.startswith(b"poison"):
            await self._settle("nack", at, m, chance.random() * 0.1)
        elif self.draining or kind < 0.9:
            await self._settle("ack", at, m)
        elif kind < 0.95:
            await self._settle("nack", at, m, chance.random() * 0.5)
        elif kind < 0.97:
            await self._settle("extend", at, m)
            await self._settle("ack", at, m)
        elif kind < 0.98:
            await asyncio.sleep(LEASE_S + 0.3)  # too late, on purpose: the receipt is stale
            await self._settle("ack", at, m)
        # else: the lease runs out

    async def _settle(self, kind: str, at: int, m: wire.Message, retry_after: float = 0.0) -> None:
        sent = time.monotonic()
        verdict: str | None = None
        try:
            client = self._clients[at]
            if kind == "ack":
                [told] = await client.ack([m])
            elif kind == "nack":
                [told] = await client.nack([m], error="on purpose", retry_after=retry_after)
            else:
                [told] = await client.extend([m], lease=LEASE_S)
            verdict = told.status
            self.acked += kind == "ack" and verdict == "ok"
        except MQueueError:
            await asyncio.sleep(PAUSE_S)
        finally:
            answered = time.monotonic()
            self._history.settle(m.id, Settle(kind, at, sent, answered, verdict, answered + retry_after))

    # -- the end ---------------------------------------------------------------------------------------------------------------

    async def left(self) -> dict[str, int]:
        """What the broker still counts, by topic; and which shard has it."""
        found = {}
        for topic in await self._clients[0].topics():
            self._history.shards[topic.topic] = topic.shard
            found[topic.topic] = topic.ready + topic.delayed + topic.leased + topic.waiting
        return found

    async def dead(self) -> set[int]:
        ids: set[int] = set()
        for topic in TOPICS:
            after = 0
            while page := await self._clients[0].dead_letters(topic, limit=1000, after=after):
                ids |= {d.id for d in page}
                after = page[-1].id
        return ids
