"""Producers and workers call any broker that answers, over HTTP; all they see is written down."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import InFlight, MQueueError, Unavailable
from mqueue.torture.history import NO_ANSWER, OK, Answer, Delivery, Enqueued, Fetch, History, Key, Settle, Window

TOPICS = ("alpha", "beta", "gamma", "delta")
LEASE_S = 2.0
CALL_S = 4.0  # a call without an answer by then counts as unanswered
PAUSE_S = 0.02
AHEAD_MAX = 20_000  # messages by which producers may be ahead of the workers
RATE_S = 0.04  # a producer's pause between two requests
RETRIES = 1_000
POISONED = 0.01  # messages that every worker nacks
POISON_RETRIES = 2
RETRY_S = 20.0  # a keyed request without an answer is sent again so long


@dataclass
class _Told:
    """`said` stays so until an answer comes."""

    said: str = NO_ANSWER
    count: int = 0


class Load:
    """`history` is what came of it. Call `enqueue`, `fetch` and `settle` for a load of another shape."""

    def __init__(self, history: History, urls: Sequence[str], token: str, seed: int) -> None:
        self.history = history
        self._clients = [AsyncClient(url, token, retries=False, timeout=CALL_S) for url in urls]
        self._seed = seed
        self._numbers = count()
        self._first_sent: dict[bytes, float] = {}  # by payload: a request without an answer is sent again
        self.draining = False
        self.produced = self.acked = 0

    async def aclose(self) -> None:
        for client in self._clients:
            await client.close()

    # -- producers -----------------------------------------------------------------------------------------------------

    async def produce(self, number: int) -> None:
        chance = random.Random(f"{self._seed} producer {number}")
        while not self.draining:
            await self._enqueue(chance)
            await asyncio.sleep(RATE_S)
            while self.produced - self.acked > AHEAD_MAX and not self.draining:  # so that the drain has an end
                await asyncio.sleep(RATE_S)

    async def _enqueue(self, chance: random.Random) -> None:
        keyed = chance.random() < 0.5
        items = [self._item(chance, keyed) for _ in range(chance.randint(1, 12))]
        until = time.monotonic() + RETRY_S
        while True:
            said = await self.enqueue(chance.randrange(len(self._clients)), items)
            # a message without a key may exist all the same; nobody counts on it
            if said == OK or (said != InFlight.code and not keyed) or time.monotonic() > until:
                return
            await asyncio.sleep(PAUSE_S)

    async def enqueue(self, at: int, items: Sequence[wire.EnqueueItem]) -> str:
        """Makes one call, and returns what was said. Each item names its retries: the judge does not know
        the broker's default.
        """
        retries = [item.max_retries for item in items if item.max_retries is not None]
        assert len(retries) == len(items), "an item names no retries"
        self.history.sent.update(item.payload for item in items)
        for item in items:
            self._first_sent.setdefault(item.payload, time.monotonic())
        with self._answer("enqueue", at) as told:
            ids = await self._clients[at].enqueue_many(items)
            told.count = len(ids)
            for id, item, most in zip(ids, items, retries, strict=True):
                keyed = item.idempotency_key is not None
                first_sent = self._first_sent.pop(item.payload, None)
                at_once = item.delay is None and item.deliver_after is None
                made = Enqueued(item.topic, item.payload, most, keyed, at, time.monotonic(), first_sent if at_once else None)
                self.history.enqueued[id] = made
            self.produced += len(ids)
        return told.said

    @contextmanager
    def _answer(self, call: str, at: int) -> Iterator["_Told"]:
        """Writes down what is said within: of a refusal its code, of 503 the reason. An error of
        the broker ends here.
        """
        told = _Told()
        sent = time.monotonic()
        try:
            yield told
            told.said = OK
        except MQueueError as error:
            if not error.detail.startswith("cannot reach the broker"):
                told.said = error.detail if error.code == Unavailable.code else error.code
        finally:
            self.history.answers.append(Answer(call, at, sent, time.monotonic(), told.said, told.count))

    def _item(self, chance: random.Random, keyed: bool) -> wire.EnqueueItem:
        poisoned = chance.random() < POISONED
        number = next(self._numbers)
        return wire.EnqueueItem(
            topic=chance.choice(TOPICS), priority=chance.randint(-4, 4), payload=b"%s %d" % (b"poison" if poisoned else b"work", number),
            delay=chance.random() if chance.random() < 0.15 else None, max_retries=POISON_RETRIES if poisoned else RETRIES,
            idempotency_key=f"{number} {uuid4()}" if keyed else None,
        )  # fmt: skip

    # -- workers -------------------------------------------------------------------------------------------------------

    async def work(self, number: int) -> None:
        """It is one worker. If it is cancelled, it vanishes with what it has leased."""
        chance = random.Random(f"{self._seed} worker {number} {time.monotonic()}")
        while True:
            at = chance.randrange(len(self._clients))
            topics = TOPICS if self.draining or chance.random() < 0.5 else tuple(chance.sample(TOPICS, chance.randint(1, 3)))
            messages = await self.fetch(at, topics, chance.randint(1, 10), chance.choice((0.0, 0.4)))
            for message in messages:
                await self._treat(chance, message)
            if not messages:
                await asyncio.sleep(PAUSE_S)

    async def fetch(self, at: int, topics: tuple[str, ...], limit: int, wait: float) -> list[wire.Message]:
        """Makes one call, and returns its messages; none where it fails."""
        sent = time.monotonic()
        polled = wire.Polled([], [])
        told = _Told()
        try:
            with self._answer("fetch", at) as told:
                polled = await self._clients[at].poll(wire.Poll(topics=list(topics), limit=limit, wait=wait, lease=LEASE_S))
                told.count = len(polled.messages)
        finally:
            if told.said != OK or polled.missing:  # what it leased comes back with its lease, or is given back
                self.history.unanswered.append(Window(sent, time.monotonic() + LEASE_S + 1.0, topics))
        if told.said == OK:
            delivered = tuple(self._delivery(m, sent) for m in polled.messages)
            self.history.fetches.append(Fetch(topics, at, sent, time.monotonic(), delivered))
        return polled.messages

    def _delivery(self, m: wire.Message, sent: float) -> Delivery:
        """The lease's end is told by our clock: the shard's may be ahead of it."""
        told = m.lease_expires_at.timestamp() - self.history.epoch
        return Delivery(
            Key(m.priority, round(m.deliver_after.timestamp() * 1e6), m.id), m.topic, m.attempt, m.payload, min(told, sent + LEASE_S), told
        )

    async def _treat(self, chance: random.Random, m: wire.Message) -> None:
        at = chance.randrange(len(self._clients))
        kind = chance.random()
        if m.payload.startswith(b"poison"):
            await self.settle("nack", at, [m], chance.random() * 0.1)
        elif self.draining or kind < 0.9:
            await self.settle("ack", at, [m])
        elif kind < 0.95:
            await self.settle("nack", at, [m], chance.random() * 0.5)
        elif kind < 0.97:
            await self.settle("extend", at, [m])
            await self.settle("ack", at, [m])
        elif kind < 0.98:
            await asyncio.sleep(LEASE_S + 0.3)  # too late, on purpose: the receipt is stale
            await self.settle("ack", at, [m])
        # else: the lease runs out

    async def settle(self, kind: str, at: int, messages: Sequence[wire.Message], retry_after: float = 0.0) -> None:
        """Makes one call."""
        sent = time.monotonic()
        verdicts: dict[int, str] = {}
        try:
            with self._answer(kind, at) as told:
                client = self._clients[at]
                if kind == "ack":
                    said = await client.ack(messages)
                elif kind == "nack":
                    said = await client.nack(messages, error="on purpose", retry_after=retry_after)
                else:
                    said = await client.extend(messages, lease=LEASE_S)
                verdicts = {v.id: v.status for v in said}
                told.count = sum(status == "ok" for status in verdicts.values())
                self.acked += told.count if kind == "ack" else 0
            if told.said != OK:
                await asyncio.sleep(PAUSE_S)
        finally:
            answered = time.monotonic()
            for m in messages:
                self.history.settle(m.id, Settle(kind, at, sent, answered, verdicts.get(m.id), answered + retry_after))

    # -- the end -------------------------------------------------------------------------------------------------------

    async def left(self) -> dict[str, int]:
        """Returns what the broker still counts, by topic; notes which shard has it."""
        found = {}
        for topic in await self._clients[0].topics():
            self.history.shards[topic.topic] = topic.shard
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
