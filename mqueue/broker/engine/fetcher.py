"""The fetcher gives the least messages of the named topics, now or as soon as one is there; never
an untrue "nothing".
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache

from mqueue.broker import failpoints
from mqueue.broker.cache.calls import Fetched
from mqueue.broker.engine.edge.give_back import GiveBack
from mqueue.broker.engine.edge.joined import fetch_joined
from mqueue.broker.engine.fetch_waiters import LOOK_S, Opening, Waiters
from mqueue.broker.faults import CacheLost, EpochEnded, Fault, Refusal, unavailable
from mqueue.broker.format import record
from mqueue.broker.metrics import Metrics
from mqueue.broker.ports import Asks
from mqueue.broker.shard import COLD, HOT, Shard
from mqueue.broker.slots import SlotMap
from mqueue.broker.store.cold import ColdStore
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.message import BODY_MAX, Delivery, TopicName

LEADER_WAIT_S = 2.0
MORE_S = 30.0  # so long it may go on removing what has expired
OPEN_WAIT_S = 0.25  # after that a fetch leaves out the topics that need the leader
OPEN_LOOK_S = 1.0  # between two looks whether they are open: a word may get lost
ASK_PAUSE_S = 0.02  # between two looks whether the shard serves again
AGAIN_S = 1.0  # so long a fetch waits before it asks a shard again that gave no answer
AWAY_S = 0.25  # whoever has nothing from the others waits so long for a shard that is known to be away: it may be back
COLD_LOOK_S = 0.25  # on the cold path nobody wakes a waiter


class Fetcher:
    def __init__(self, shards: Sequence[Shard], slots: SlotMap, waiters: Waiters, metrics: Metrics, clock: Clock, give_back: GiveBack) -> None:
        self._give_back = give_back
        self._shards = shards
        self._slots = slots
        self._waiters = waiters
        self._metrics = metrics
        self._clock = clock

    async def fetch(
        self, namespace: str, topics: Sequence[str], limit: int, wait: float = 0.0, lease: float | None = None, asks: Asks | None = None
    ) -> list[Delivery]:
        names = [TopicName(namespace, topic) for topic in dict.fromkeys(topics)]
        by_shard: dict[int, list[TopicName]] = defaultdict(list)
        for name in names:
            by_shard[self._slots.shard(name)].append(name)
        lease_ms = 0 if lease is None else max(1, int(lease * 1000))
        asks = asks or Asks()
        try:
            if wait <= 0:
                return await self._fetch(by_shard, limit, lease_ms, asks, 0.0, None)
            return await self._wait(names, by_shard, limit, lease_ms, asks, self._clock.monotonic() + wait)
        except Unavailable:
            if asks.takes_less and 0 < len(asks.missing) < len(by_shard):
                return []
            raise

    async def _wait(
        self, names: Sequence[TopicName], by_shard: dict[int, list[TopicName]], limit: int, lease_ms: int, asks: Asks, deadline: float
    ) -> list[Delivery]:
        waiter = self._waiters.add(names)
        asks.wake = waiter.event.set
        self._metrics.waiting_fetches.set(self._waiters.count)
        try:
            while True:
                waiter.event.clear()
                failed: Unavailable | None = None
                try:
                    left = deadline - self._clock.monotonic()
                    found = await self._fetch(by_shard, limit, lease_ms, asks, left, waiter.event)
                except Unavailable as error:
                    if len(by_shard) == 1:
                        raise
                    found, failed = [], error
                left = deadline - self._clock.monotonic()
                if found or left <= 0 or asks.said:
                    if failed is not None and not asks.said:
                        raise failed
                    return found
                try:
                    async with asyncio.timeout(min(left, 60.0 if failed is None else AGAIN_S)):
                        await waiter.event.wait()
                except TimeoutError:
                    continue
        finally:
            self._waiters.remove(waiter)
            self._metrics.waiting_fetches.set(self._waiters.count)
            if waiter.event.is_set():  # it was woken for nothing: somebody else may have to be woken
                for name in names:
                    self._waiters.wake(name)

    async def _fetch(
        self, by_shard: dict[int, list[TopicName]], limit: int, lease_ms: int, asks: Asks, left: float, woken: asyncio.Event | None
    ) -> list[Delivery]:
        """Returns what is there now, of all these shards. It is empty only when that is true, or when whoever asked has
        gone: then nothing stays leased.
        """
        asks.look_again()
        if asks.gone():
            return []

        def fetch(number: int, limit: int) -> Awaitable[list[Delivery]]:
            return self._fetch_shard(self._shards[number], by_shard[number], limit, lease_ms, woken is not None)

        if len(by_shard) == 1:
            try:
                found = await fetch(next(iter(by_shard)), limit)
            except Fault as fault:
                raise unavailable(fault) from fault
        else:
            order = random.sample([*by_shard], len(by_shard))
            crowded = {number for number in order if self._give_back.crowded(number)}
            asks.missing |= crowded
            order = [number for number in order if number not in crowded]
            found = await fetch_joined(
                order, fetch, limit, asks.missing, self._give_back.now, self._is_away, max(AWAY_S, left), woken, lambda: asks.said
            )
            if asks.missing and not found and not asks.said:
                raise Unavailable(f"shard {min(asks.missing)} does not answer, and no other has anything", retry_after=1)
        if found:
            await failpoints.ahit("dequeue.before_reply")
            if asks.gone():  # nobody would get it
                self._give_back.now(found)
                return []
            self._metrics.dequeued(found[0].namespace, len(found))
        return found

    def _is_away(self, number: int) -> bool:
        shard = self._shards[number]
        return not shard.serving.is_set() or (shard.mode == HOT and not shard.reaches) or self._give_back.silent(number)

    async def _fetch_shard(self, shard: Shard, names: Sequence[TopicName], limit: int, lease_ms: int, waiting: bool) -> list[Delivery]:
        """Returns what this shard has now. Topics that need the leader hold up the others for OPEN_WAIT_S; where
        PostgreSQL is known to be away, not at all.
        """
        began = self._clock.monotonic()
        deadline, partial_at = began + LEADER_WAIT_S, began + OPEN_WAIT_S
        with ExitStack() as stack:
            opening: Opening | None = None
            while True:
                await shard.wait_serving()
                now = self._clock.monotonic()
                partial = now >= partial_at or shard.store.circuit.is_open
                if opening is not None:
                    opening.look()
                try:
                    got = await self._give_back.keep(shard.number, self._take(shard, names, limit, lease_ms, waiting, partial), _deliveries)
                except EpochEnded:
                    shard.lost()
                    got = None
                except CacheLost:
                    shard.suspect.set()
                    raise
                if got is not None:
                    if got.status == "ok":
                        return self._delivered(shard, names, got)
                    if got.status == "nothing":
                        return []
                now = self._clock.monotonic()
                if got is not None and got.status == "more":  # it comes on: the leader need not
                    deadline = min(now + LEADER_WAIT_S, began + MORE_S)
                if now >= deadline:
                    raise Unavailable(f"shard {shard.number}: {_held_up(shard, names, got)}", retry_after=1)
                if got is None:
                    await asyncio.sleep(ASK_PAUSE_S)
                elif got.status == "ask" and opening is None:  # and look again at once: the word may have come before this
                    opening = stack.enter_context(self._waiters.opening(map(str, names)))
                elif got.status == "ask" and opening is not None:
                    opening.wait_for(got.closed)
                    until = min(deadline, now + OPEN_LOOK_S) if partial else min(deadline, partial_at)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, until - now)):
                            await opening.event.wait()

    def _delivered(self, shard: Shard, names: Sequence[TopicName], got: Fetched) -> list[Delivery]:
        if got.left:
            for name in names:
                self._waiters.wake(name, got.left)
        if got.closed:
            shard.metrics.partial_fetches.inc()
        return _deliveries(got)

    async def _take(self, shard: Shard, names: Sequence[TopicName], limit: int, lease_ms: int, waiting: bool, partial: bool) -> Fetched:
        if shard.mode == HOT:
            return await shard.cache.fetch(shard.epoch, shard.node, [str(name) for name in names], limit, lease_ms, waiting, partial)
        if shard.mode != COLD:
            raise Unavailable(f"Redis of shard {shard.number} cannot be reached from here", retry_after=1)
        topics = [name.topic for name in names]
        rows, clock = await ColdStore(shard.store).fetch(shard.epoch, shard.now_us(), names[0].namespace, topics, limit, lease_ms, BODY_MAX)
        shard.saw_cold_clock(clock)
        if not rows:
            return Fetched("nothing", clock)
        records, bodies = zip(*rows, strict=True)
        return Fetched("ok", clock, records, bodies, int(len(rows) == limit))

    async def wake_loop(self, shard: Shard) -> None:
        """Wakes waiters when Redis says so, and every LOOK_S to be sure."""
        while True:
            if shard.mode == COLD:
                await asyncio.sleep(COLD_LOOK_S)
                self._waiters.look()
                continue
            try:
                topic = await shard.cache.wait_for_wake(shard.node, LOOK_S)
            except Fault:
                await asyncio.sleep(0.2)
                continue
            if topic is None:
                self._waiters.look()
                continue
            if topic == "@":
                shard.due.set()
                continue
            if topic.startswith("!"):
                self._waiters.opened(topic[1:].split("\n"))
                continue
            namespace, _, name = topic.partition("/")
            if not self._waiters.wake(TopicName(namespace, name)):
                try:
                    await shard.cache.pass_wake(shard.epoch, topic)
                except Fault:
                    continue


def _held_up(shard: Shard, names: Sequence[TopicName], got: Fetched | None) -> str:
    if got is None:
        return "its epoch has ended, and the next one is not open"
    if shard.refusal is Refusal.FULL:
        return "its Redis is full"
    if got.status == "more":
        return "more has expired than can be removed at once: go on asking"
    return f"its leader does not answer: {len(got.closed)} of the {len(names)} topics need PostgreSQL, as {got.closed[0]!r}"


def _deliveries(got: Fetched) -> list[Delivery]:
    return [_delivery(data, body, got.clock) for data, body in zip(got.records, got.bodies, strict=True)]


def _delivery(data: bytes, body: bytes, clock: int) -> Delivery:
    _, _, attempts, retries, _, _, priority, _, due, id, _, _, _, _, receipt, until, _ = record.RECORD.unpack_from(data)
    created, payload, metadata, _ = record.content(body)
    namespace, _, topic = record.topic(data).partition("/")
    return Delivery(
        id,
        namespace,
        topic,
        priority - record.BIAS,
        payload,
        metadata,
        due,
        created,
        attempts + 1,
        retries,
        _receipt(receipt),
        until,
        until - clock,
    )


@lru_cache(64)  # one for all messages of a fetch
def _receipt(packed: bytes) -> str:
    return f"{int.from_bytes(packed[:4]):x}-{int.from_bytes(packed[4:]):x}"
