"""Unique keys under load at two brokers: one waits per key while all is well, and nothing is lost when a broker dies
and Redis is away.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import MQueueError
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET
from tests.waiting import until

TOPICS = ("a", "b", "c", "d")
KEY = "the same in each topic"
PRODUCERS, WORKERS = 8, 4
LEASE_S = 2.0
FLUSH_S = 0.25  # the brokers' default
TURN_S = 30.0  # within which the shard is as it should be
NEVER = float("inf")


@dataclass
class Told:
    """An answer to an enqueue. Times: monotonic seconds."""

    id: int
    sent: float
    answered: float


@dataclass
class History:
    """By topic what the enqueues were told; by id when fetches of it were sent and answered, and what may have ended
    it.
    """

    told: dict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    fetched: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    acked: set[int] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)

    async def tells(self) -> bool:
        """Is there something to judge?"""
        return len(self.told) == len(TOPICS) and all(len(told) > len({one.id for one in told}) > 5 for told in self.told.values())

    def open(self) -> set[int]:
        """Ids that were told and not acked."""
        return {one.id for told in self.told.values() for one in told} - self.acked

    def doubles(self, topic: str) -> list[tuple[int, int]]:
        """Pairs of which both certainly waited at one moment: each from its first answer until the fetch that got it
        was sent.
        """
        waited: dict[int, tuple[float, float]] = {}
        for one in self.told[topic]:
            fetches = self.fetched.get(one.id)
            since = min(one.answered, waited[one.id][0]) if one.id in waited else one.answered
            waited[one.id] = since, fetches[0][0] if fetches else NEVER
        return [(x, y) for x, y in combinations(sorted(waited), 2) if max(waited[x][0], waited[y][0]) < min(waited[x][1], waited[y][1])]

    def told_while_running(self, topic: str) -> list[int]:
        """Ids that an enqueue was told although their delivery had come before it was sent."""
        return [one.id for one in self.told[topic] if one.id in self.fetched and one.sent > self.fetched[one.id][0][1]]


class Load:
    """Producers that enqueue under each topic's key all the time, and workers."""

    def __init__(self, clients: list[AsyncClient], history: History, nacks: float) -> None:
        self._clients = clients
        self._history = history
        self._nacks = nacks
        self._over = asyncio.Event()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for n in range(PRODUCERS):
                group.create_task(self._produce(n))
            for n in range(WORKERS):
                group.create_task(self._work(n))
            try:
                yield
            finally:
                self._over.set()

    async def _produce(self, n: int) -> None:
        chance = random.Random(n)
        while not self._over.is_set():
            topics = chance.sample(TOPICS, chance.choice((1, 1, 2)))
            items = [wire.EnqueueItem(topic=topic, unique_key=KEY, payload=b"%d" % n, max_retries=1000) for topic in topics]
            sent = time.monotonic()
            try:
                ids = await self._clients[n % len(self._clients)].enqueue_many(items)
            except MQueueError as error:
                self._history.refused[error.code] += 1
                continue
            for topic, id in zip(topics, ids, strict=True):
                self._history.told[topic].append(Told(id, sent, time.monotonic()))

    async def _work(self, n: int) -> None:
        chance = random.Random(n)
        client = self._clients[n % len(self._clients)]
        while not self._over.is_set():
            await self._turn(client, chance)
            await asyncio.sleep(chance.random() * 0.05)  # the time a job takes: without it nothing would wait for long

    async def _turn(self, client: AsyncClient, chance: random.Random) -> None:
        sent = time.monotonic()
        try:
            got = await client.fetch(TOPICS, limit=chance.choice((1, 2)), lease=LEASE_S)
            for message in got:
                self._history.fetched[message.id].append((sent, time.monotonic()))
            for message in got:
                if chance.random() < self._nacks:
                    await client.nack([message], error="on purpose", retry_after=chance.random() * 0.2)
                else:
                    await ack(client, self._history, message)
        except MQueueError as error:
            self._history.refused[error.code] += 1


async def ack(client: AsyncClient, history: History, message: wire.Message) -> None:
    try:
        [verdict] = await client.ack([message])
    except MQueueError:
        history.acked.add(message.id)  # it may have counted
        raise
    if verdict.status != "stale":
        history.acked.add(message.id)


async def all_cold(stage: Stage) -> bool:
    return [await stage.metric(broker, "mqueue_cold") for broker in stage.brokers] == [1] * len(stage.brokers)


async def live(client: AsyncClient, state: str) -> dict[str, int]:
    """Messages per topic."""
    return {t.topic: getattr(t, state) for t in await client.topics() if t.topic in TOPICS}


async def drain(client: AsyncClient, history: History) -> None:
    """Acks all there is until every id that was told is acked."""

    async def over() -> bool:
        for message in await client.fetch(TOPICS, limit=100):
            await ack(client, history, message)
        return not history.open()

    await until(over, f"all that was told comes, of {len(history.open())}", TURN_S)


async def test_one_waits_per_key_and_nothing_is_lost(data_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(Stage(data_dir, 1, 2, SECRET, {"MQUEUE_LOG_LEVEL": "info"}))
        # with a key of the request, and without
        clients = [
            await stack.enter_async_context(AsyncClient(broker.url, stage.token, timeout=5.0, safe_retries=safe))
            for safe in (True, False)
            for broker in stage.brokers
        ]
        calm = History()
        async with Load(clients, calm, nacks=0.0)():
            await asyncio.sleep(1.0)  # the load goes on
            await until(calm.tells, "ids that were told again, of several messages a key", TURN_S)
        assert {topic: calm.doubles(topic) for topic in TOPICS} == {topic: [] for topic in TOPICS}
        assert {topic: calm.told_while_running(topic) for topic in TOPICS} == {topic: [] for topic in TOPICS}
        await drain(clients[1], calm)

        history = History()
        async with Load(clients, history, nacks=0.3)():
            await stage.brokers[0].kill()
            await stage.brokers[0].start()
            await stage.settled()
            for broker in stage.brokers:
                broker.redis.cut()
            await until(lambda: all_cold(stage), "cold", TURN_S)
            before = sum(map(len, history.told.values()))
            await until(lambda: sum(map(len, history.told.values())) > before + 20, "enqueues past Redis", TURN_S)
            for broker in stage.brokers:
                broker.redis.heal()
            await stage.settled()

        a, b = clients[:2]
        await until(lambda: none(live(a, "leased")), "no lease is left", TURN_S)
        waited = await steady(a)
        for topic in TOPICS:
            [first] = await a.enqueue_many([item := wire.EnqueueItem(topic=topic, unique_key=KEY)])
            assert await a.enqueue_many([item]) == await b.enqueue_many([item]) == [first], topic
            history.told[topic].append(Told(first, 0.0, 0.0))
        one_each = {topic: max(1, waited[topic]) for topic in TOPICS}
        assert await steady(b) == one_each
        await drain(b, history)
        assert await stage.drift() == {}


async def steady(client: AsyncClient) -> dict[str, int]:
    """How many wait, told twice: under load each look may fall into a flush."""
    before: dict[str, int] = {}

    async def alike() -> bool:
        nonlocal before
        last, before = before, await live(client, "waiting")
        await asyncio.sleep(2 * FLUSH_S)  # time itself is the condition
        return last == before

    await until(alike, "two counts alike", TURN_S)
    return before


async def none(live: Awaitable[dict[str, int]]) -> bool:
    return not any((await live).values())
