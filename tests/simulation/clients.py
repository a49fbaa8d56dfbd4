"""Producers and workers: they ask any broker, are told or not, and write it all down."""

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from mqueue.message import Delivery, Durability, Extend, NewMessage, RequestKey, Settle

from .broker import SimBroker, Unknown
from .loop import elapse

if TYPE_CHECKING:
    from .world import World

NAMESPACE = "n"
TOPICS = ("a", "b")


class Clients:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng
        self._history = world.history
        self._tokens = 0
        self._tasks: list[asyncio.Task[None]] = []

    def any_broker(self) -> SimBroker:
        up = [b for b in self._world.brokers if b.engine is not None]
        return self._rng.choice(up or self._world.brokers)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._world.loop.create_task(work))

    async def finish(self) -> None:
        """All that was begun is answered, or given up."""
        while self._tasks:
            await self._tasks.pop()

    # -- producers -----------------------------------------------------------------------------------------------------

    async def produce(self, until: float) -> None:
        loop, rng = self._world.loop, self._rng
        while loop.time() < until:
            await elapse(rng.expovariate(1.5))
            self._begin(self._enqueue())

    async def _enqueue(self) -> None:
        rng = self._rng
        kind = rng.choices(["plain", "keyed", "request"], [8, 2, 1])[0]
        messages, tokens = [], []
        topic = rng.choice(TOPICS)
        for _ in range(rng.choice([1, 1, 2, 5])):
            self._tokens += 1
            ttl = rng.choice([None] * 8 + [3.0, 10.0])
            key = f"key-{self._tokens}" if kind == "keyed" else None
            tokens.append(self._tokens)
            self._history.asks(self._tokens, ttl, key or (f"request-{tokens[0]}" if kind == "request" else None), kind == "request")
            messages.append(
                NewMessage(
                    NAMESPACE,
                    topic,
                    b"%d" % self._tokens,
                    priority=rng.randint(-1, 2),
                    delay=rng.choice([None] * 5 + [1.5, 7.0, 20.0]),
                    ttl=ttl,
                    idempotency_key=key,
                    max_retries=rng.choice([1, 3, 3, 3]),
                )
            )
        whole = RequestKey(f"request-{tokens[0]}", hashlib.blake2b(b"%d" % tokens[0], digest_size=16).digest()) if kind == "request" else None
        durability: Durability = "postgres" if rng.random() < 0.1 else "wal"
        for _ in range(3 if kind != "plain" else 1):
            broker = self.any_broker()
            self._world.tell("client", f"enqueues jobs {tokens} at {broker.name}")
            try:
                accepted = await broker.call(lambda engine: engine.enqueue(messages, whole, durability))
            except Unknown as unknown:
                self._world.count("enqueues unknown")
                self._history.unanswered += len(tokens)
                self._world.tell("client", f"knows nothing of jobs {tokens}: {unknown}")
                await elapse(rng.uniform(0.1, 4))
                continue
            self._world.count("enqueues")
            self._history.enqueued(tokens, accepted.ids, broker, accepted.durability)
            if kind == "plain" or rng.random() < 0.5:
                return
            await elapse(rng.uniform(0.01, 2))  # and once more, with the same key

    # -- workers -------------------------------------------------------------------------------------------------------

    async def work(self, until: float) -> None:
        loop, rng = self._world.loop, self._rng
        while loop.time() < until:
            got = await self.fetch(self.any_broker(), rng.choice([TOPICS, TOPICS[:1], TOPICS[1:]]), rng.randint(1, 3), rng.choice([0.0, 1.0]))
            if got:
                self._begin(self._perform(got, rng.choice([0.05, 0.5, 2.0, 9.0])))
            await elapse(rng.uniform(0.05, 0.8))

    async def fetch(self, broker: SimBroker, topics: Sequence[str], limit: int, wait: float, lease: float | None = None) -> list[Delivery]:
        lease = lease or self._rng.choice([2.0, 6.0, 15.0])
        asked_at = self._world.loop.time()
        self._history.unknown_fetches += 1  # until its answer comes, and for ever where it does not
        try:
            got = await broker.call(lambda engine: engine.fetch(NAMESPACE, topics, limit, wait, lease))
        except Unknown as unknown:
            self._world.count("fetches unknown")
            self._history.unknown_fetches -= str(unknown) == "refused"
            return []
        self._history.unknown_fetches -= 1
        self._world.count("deliveries", len(got))
        self._history.delivered(got, asked_at, lease)
        return got

    async def cancel(self, until: float) -> None:
        """Now and then somebody wants a job no more."""
        loop, rng = self._world.loop, self._rng
        while loop.time() < until:
            await elapse(rng.expovariate(0.5))
            ids = [id for job in self._history.jobs.values() for id in job.ids if not job.open_acks]
            if ids:
                self._begin(self._cancel(rng.choice(ids[-30:])))

    async def _cancel(self, id: int) -> None:
        broker = self.any_broker()
        self._history.cancels(id)
        try:
            mode = broker.shard.mode if broker.shard is not None else ""
            answer = await broker.call(lambda engine: engine.cancel(id, None))
        except Unknown as unknown:
            self._world.count("cancels unknown")
            self._world.tell("client", f"knows nothing of the cancel of {id:x}: {unknown}")
            if str(unknown) == "refused":
                self._history.job_of(id).open_acks -= 1
            return
        self._world.count(answer)
        cold = mode == "cold" and broker.shard is not None and broker.shard.mode == mode
        self._history.cancelled(id, answer, broker, cold)

    async def _perform(self, got: list[Delivery], seconds: float) -> None:
        rng = self._rng
        await elapse(rng.random() * seconds)
        settles = []
        for d in got:
            kind = rng.choices(["ack", "nack", "release", "bury", "extend", "nothing"], [14, 3, 1, 0.4, 1, 1.5])[0]
            if kind == "extend":
                await self._extend(d)
                kind = "ack"
            if kind != "nothing":
                later = rng.choice([None, 0.5, 4.0]) if kind in ("nack", "release") else None
                settles.append(Settle(d.id, NAMESPACE, d.topic, kind, d.receipt, "it failed" if kind == "nack" else None, later))  # type: ignore[arg-type]
        tokens = [int(d.payload) for s in settles for d in got if d.id == s.id]
        if settles and not await self.settle(self.any_broker(), settles, tokens) and rng.random() < 0.5:
            await elapse(rng.random() * 3)
            await self.settle(self.any_broker(), settles, tokens)

    async def settle(self, broker: SimBroker, settles: list[Settle], tokens: list[int]) -> list[str]:
        """Verdicts; [] where nothing is known."""
        self._history.settles(settles, tokens)
        try:
            mode = broker.shard.mode if broker.shard is not None else ""
            verdicts = await broker.call(lambda engine: engine.settle(settles))
        except Unknown as unknown:
            self._world.count("settles unknown")
            self._world.tell("client", f"knows nothing of {[s.kind for s in settles]} of {tokens}: {unknown}")
            if str(unknown) == "refused":
                self._history.never_sent(settles, tokens)
            return []
        self._world.count("settles", len(settles))
        cold = mode == "cold" and broker.shard is not None and broker.shard.mode == mode
        self._history.settled(settles, tokens, verdicts, broker, cold)
        return list(verdicts)

    async def _extend(self, d: Delivery) -> None:
        try:
            await self.any_broker().call(lambda engine: engine.extend([Extend(d.id, NAMESPACE, d.topic, d.receipt, 10.0)]))
        except Unknown:
            pass
