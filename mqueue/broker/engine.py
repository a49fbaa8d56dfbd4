"""The use cases: enqueue, fetch, settle, extend, dead letters, and what can be seen. HTTP calls nothing else.

Everything was checked before it comes here (`http/convert.py`); what is decided here is where it goes.
"""

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

from mqueue.broker import failpoints, record
from mqueue.broker.cache.ready import SettleArgs
from mqueue.broker.committer import Committer, Draft, Repeated, delays
from mqueue.broker.faults import CacheLost, EpochEnded, Fault, StoreLost
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import Shard
from mqueue.broker.sharding import SlotMap
from mqueue.broker.waiters import LOOK_S, Waiters
from mqueue.clock import Clock
from mqueue.errors import BufferFull, InFlight, Invalid, KeyReused, Unavailable
from mqueue.lifecycle import GONE, State
from mqueue.message import (
    ERROR_MAX,
    TIME_MAX_US,
    DeadLetter,
    Delivery,
    Extend,
    MessageStatus,
    NewMessage,
    RequestKey,
    Settle,
    TopicName,
    TopicStats,
    Verdict,
)

T = TypeVar("T")
ROOM_WAIT_S = 5.0
LEADER_WAIT_S = 2.0
ASK_PAUSE_S = 0.002
FLUSH_PAUSE_S = 0.02
FLUSH = "!flush"  # on the ask list: flush all now (no topic is called so)
VERDICTS: dict[str, Verdict] = {"o": "ok", "s": "stale", "g": "gone"}
STATES = {"r": "ready", "d": "delayed", "l": "leased", "s": "waiting", "x": "dead", "n": "waiting"}


class Engine:
    def __init__(
        self,
        shards: Sequence[Shard],
        committers: Sequence[Committer],
        slots: SlotMap,
        waiters: Waiters,
        metrics: Metrics,
        clock: Clock,
        *,
        lease_s: float,
        max_retries: int,
        idempotency_s: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._shards = shards
        self._committers = committers
        self._slots = slots
        self._waiters = waiters
        self._metrics = metrics
        self._clock = clock
        self._lease_ms = int(lease_s * 1000)
        self._max_retries = max_retries
        self._key_ttl_us = int(idempotency_s * 1e6)
        self._jitter = jitter

    # -- enqueue -------------------------------------------------------------------------------------------------------------

    async def enqueue(self, messages: Sequence[NewMessage], key: RequestKey | None = None) -> list[int]:
        drafts = [self._draft(m, i) for i, m in enumerate(messages)]
        by_shard: dict[int, list[int]] = defaultdict(list)
        for i, m in enumerate(messages):
            by_shard[self._slots.shard(TopicName(m.namespace, m.topic))].append(i)
        ids: list[int] = [0] * len(messages)
        key_hash = _request_hash(messages, key.key) if key is not None else b""
        body_hash = key.body_hash if key is not None else b""
        parts = [self._enqueue(shard, drafts, items, ids, key_hash, body_hash) for shard, items in by_shard.items()]
        if len(parts) == 1:
            await parts[0]
        else:
            results = await asyncio.gather(*parts, return_exceptions=True)
            for error in results:
                if isinstance(error, BaseException):
                    raise error
        for namespace in {m.namespace for m in messages}:
            self._metrics.enqueued(namespace, sum(1 for m in messages if m.namespace == namespace))
        return ids

    def _draft(self, m: NewMessage, item: int) -> Draft:
        body = record.body(0, m.payload, m.metadata, m.idempotency_key)[record.CREATED.size :]
        delay_us = int(m.delay * 1e6) if m.delay else 0
        if delay_us and self._clock.wall_us() + delay_us >= TIME_MAX_US:
            raise Invalid("delay: too far in the future", item=item, field="delay")
        draft = Draft(
            topic=f"{m.namespace}/{m.topic}".encode(),
            priority=m.priority,
            body=body,
            deliver_after_us=m.deliver_after_us,
            delay_us=delay_us,
            ttl_us=int(m.ttl * 1e6) if m.ttl is not None else 0,
            max_retries=self._max_retries if m.max_retries is None else m.max_retries,
            lease_ms=self._lease_ms if m.lease is None else int(m.lease * 1000),
        )
        if m.idempotency_key is not None:
            draft.key_hash = _hash(draft.topic + b"\0" + m.idempotency_key.encode())
            fixed = f"{m.priority} {m.deliver_after_us} {m.delay} {m.ttl} {draft.max_retries} {draft.lease_ms}"
            draft.body_hash = _hash(fixed.encode() + body)
            draft.key_ttl_us = self._key_ttl_us
        return draft

    async def _enqueue(
        self, number: int, drafts: Sequence[Draft], items: Sequence[int], ids: list[int], key_hash: bytes, body_hash: bytes
    ) -> None:
        """Fills `ids` at `items`. Errors name the item of the request."""
        shard = self._shards[number]
        await shard.wait_serving()
        try:
            known = await self._known_keys(shard, drafts, items)
            new = [i for i in items if i not in known]
            size = sum(drafts[i].size for i in new)
            deadline = self._clock.monotonic() + ROOM_WAIT_S
            while new:
                await self._wait_for_room(shard, size, deadline)
                try:
                    made = await self._committers[number].enqueue([drafts[i] for i in new], key_hash, body_hash)
                except InFlight:  # at another broker, whose disk may not have it yet
                    if self._clock.monotonic() >= deadline:
                        raise
                    await shard.cache.ask(FLUSH)
                    await asyncio.sleep(FLUSH_PAUSE_S)
                    continue
                except Repeated:
                    made = await self._ids_of_request(shard, key_hash)
                except BufferFull:
                    if self._clock.monotonic() >= deadline:
                        raise
                    shard.room.clear()
                    continue
                except KeyReused as error:
                    error.item = None if error.item is None else new[error.item]
                    raise
                known.update(zip(new, made, strict=True))
                break
        except Fault as fault:
            raise _unavailable(fault) from fault
        for i in items:
            ids[i] = known[i]

    async def _known_keys(self, shard: Shard, drafts: Sequence[Draft], items: Sequence[int]) -> dict[int, int]:
        """Items whose idempotency key only PostgreSQL knows: item → id of the first message. One SELECT a request.

        The script checks again what Redis knows, but refuses a request whole: only here the item to blame is known.
        """
        keyed = [i for i in items if drafts[i].key_hash]
        if not keyed:
            return {}
        in_redis = await shard.cache.has_key([drafts[i].key_hash for i in keyed])
        for i, told in zip(keyed, in_redis, strict=True):
            if told is not None and record.IDEMPOTENCY.unpack(told)[1] != drafts[i].body_hash:
                raise _key_reused(i)
        missing = [i for i, told in zip(keyed, in_redis, strict=True) if told is None]
        if not missing:
            return {}
        rows = await shard.store.find_keys([drafts[i].key_hash for i in missing], shard.now_us())
        found = {key_hash: (body_hash, id) for key_hash, body_hash, id, _ in rows}
        known: dict[int, int] = {}
        for i in missing:
            if drafts[i].key_hash in found:
                body_hash, id = found[drafts[i].key_hash]
                if body_hash != drafts[i].body_hash:
                    raise _key_reused(i)
                known[i] = id
        return known

    async def _ids_of_request(self, shard: Shard, key_hash: bytes) -> list[int]:
        """What this request's first try was given."""
        [told] = await shard.cache.has_key([key_hash])
        if told is None:
            raise Unavailable("the idempotency key of this request has just been forgotten: it was enqueued before", retry_after=1)
        return record.unpack_runs(told[record.IDEMPOTENCY.size :])

    async def _wait_for_room(self, shard: Shard, size: int, deadline: float) -> None:
        """The write-behind buffer has room for so many bytes more, or has none at all in it."""
        while shard.buffer and shard.buffer_max and shard.buffer + shard.coming + size > shard.buffer_max:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise BufferFull("the write-behind buffer is full: PostgreSQL does not keep up", retry_after=1)
            shard.room.clear()
            try:
                await asyncio.wait_for(shard.room.wait(), min(left, 0.1))
            except TimeoutError:
                shard.buffer = (await shard.cache.gauges())["buffer"]

    # -- fetch ---------------------------------------------------------------------------------------------------------------

    async def fetch(self, namespace: str, topics: Sequence[str], limit: int, wait: float = 0.0, lease: float | None = None) -> list[Delivery]:
        names = [TopicName(namespace, topic) for topic in dict.fromkeys(topics)]
        by_shard: dict[int, list[TopicName]] = defaultdict(list)
        for name in names:
            by_shard[self._slots.shard(name)].append(name)
        lease_ms = 0 if lease is None else max(1, int(lease * 1000))
        deadline = self._clock.monotonic() + wait
        if wait <= 0:
            return await self._fetch(by_shard, limit, lease_ms, False)
        waiter = self._waiters.add(names)
        self._metrics.waiting_fetches.set(self._waiters.count)
        try:
            while True:
                waiter.event.clear()
                found = await self._fetch(by_shard, limit, lease_ms, True)
                left = deadline - self._clock.monotonic()
                if found or left <= 0:
                    return found
                try:
                    await asyncio.wait_for(waiter.event.wait(), min(left, 60.0))
                except TimeoutError:
                    continue
        finally:
            self._waiters.remove(waiter)
            self._metrics.waiting_fetches.set(self._waiters.count)
            if waiter.event.is_set():  # woken for nothing: somebody else may need the word
                for name in names:
                    self._waiters.wake(name)

    async def _fetch(self, by_shard: dict[int, list[TopicName]], limit: int, lease_ms: int, waiting: bool) -> list[Delivery]:
        """What is there now, of all these shards. Empty only when that is true."""
        found: list[Delivery] = []
        order = list(by_shard)
        if len(order) > 1:
            random.shuffle(order)
        for number in order:
            try:
                found += await self._fetch_shard(self._shards[number], by_shard[number], limit - len(found), lease_ms, waiting)
            except (Unavailable, Fault) as error:
                if not found:
                    raise _unavailable(error) if isinstance(error, Fault) else error from error
            if len(found) >= limit:
                break
        if found:
            await failpoints.ahit("dequeue.before_reply")
            self._metrics.dequeued(found[0].namespace, len(found))
        return found

    async def _fetch_shard(self, shard: Shard, names: Sequence[TopicName], limit: int, lease_ms: int, waiting: bool) -> list[Delivery]:
        topics = [str(name) for name in names]
        deadline = self._clock.monotonic() + LEADER_WAIT_S
        while True:
            await shard.wait_serving()
            try:
                got = await shard.cache.fetch(shard.epoch, shard.node, topics, limit, lease_ms, waiting)
            except EpochEnded:
                shard.lost()
                got = None
            except CacheLost:
                shard.suspect.set()
                raise
            if got is not None:
                if got.status == "ok":
                    if got.left:
                        for name in names:
                            self._waiters.wake(name, got.left)
                    return [_delivery(data, body) for data, body in zip(got.records, got.bodies, strict=True)]
                if got.status == "nothing":
                    return []
            if self._clock.monotonic() >= deadline:
                raise Unavailable(f"shard {shard.number}: its leader does not answer", retry_after=1)
            if got is None or got.status == "ask":
                await asyncio.sleep(ASK_PAUSE_S)

    # -- settle and extend ---------------------------------------------------------------------------------------------------

    async def settle(self, settles: Sequence[Settle]) -> list[Verdict]:
        verdicts = await self._by_shard(settles, self._settle_shard)
        acked: dict[str, int] = defaultdict(int)
        nacked: dict[str, int] = defaultdict(int)
        for s, verdict in zip(settles, verdicts, strict=True):
            if verdict == "ok" and s.kind in ("ack", "nack"):
                (acked if s.kind == "ack" else nacked)[s.namespace] += 1
        for namespace, count in acked.items():
            self._metrics.acked(namespace, count)
        for namespace, count in nacked.items():
            self._metrics.nacked(namespace, count)
        return verdicts

    async def _by_shard(self, items: Sequence[Any], call: Callable[[Shard, Sequence[Any]], Awaitable[list[Verdict]]]) -> list[Verdict]:
        by_shard: dict[int, list[int]] = defaultdict(list)
        for i, item in enumerate(items):
            by_shard[self._slots.shard(TopicName(item.namespace, item.topic))].append(i)
        if len(by_shard) == 1:
            return await call(self._shards[next(iter(by_shard))], items)
        parts = await asyncio.gather(*(call(self._shards[n], [items[i] for i in at]) for n, at in by_shard.items()))
        verdicts: list[Verdict] = ["gone"] * len(items)
        for at, part in zip(by_shard.values(), parts, strict=True):
            for i, verdict in zip(at, part, strict=True):
                verdicts[i] = verdict
        return verdicts

    async def _settle_shard(self, shard: Shard, settles: Sequence[Settle]) -> list[Verdict]:
        args = [self._settle_args(s) for s in settles]
        outcomes = await self._committers[shard.number].settle(settles, args)
        died: dict[str, int] = defaultdict(int)
        for s, outcome in zip(settles, outcomes, strict=True):
            if outcome.state == State.DEAD:
                died[s.namespace] += 1
        for namespace, count in died.items():
            self._metrics.dead(namespace, count)
        return await self._verdicts(shard, settles, [VERDICTS[outcome.verdict.decode()] for outcome in outcomes])

    def _settle_args(self, s: Settle) -> SettleArgs:
        retry = b""
        if s.kind in ("nack", "bury"):
            retry = delays(self._jitter(), s.retry_after)
        elif s.kind == "release" and s.retry_after:
            retry = delays(0.0, s.retry_after)
        error = (s.error or "").encode()[:ERROR_MAX] if s.kind in ("nack", "bury") else b""
        error = error.decode(errors="ignore").replace("\0", "").encode()  # cut at a character; PostgreSQL's text has no NUL
        receipt = _receipt(s.receipt)
        return SettleArgs(s.id.to_bytes(8), f"{s.namespace}/{s.topic}".encode(), s.kind, receipt, error, retry)

    async def extend(self, extends: Sequence[Extend]) -> list[Verdict]:
        return await self._by_shard(extends, self._extend_shard)

    async def _extend_shard(self, shard: Shard, extends: Sequence[Extend]) -> list[Verdict]:
        await shard.wait_serving()
        items = [
            (
                e.id.to_bytes(8),
                f"{e.namespace}/{e.topic}".encode(),
                _receipt(e.receipt),
                0 if e.lease is None else int(e.lease * 1000),
            )
            for e in extends
        ]
        try:
            letters = await shard.cache.extend(shard.epoch, items)
        except Fault as fault:
            shard.suspect.set()
            raise _unavailable(fault) from fault
        return await self._verdicts(shard, extends, [VERDICTS[chr(letter)] for letter in letters])

    async def _verdicts(self, shard: Shard, items: Sequence[Settle | Extend], verdicts: list[Verdict]) -> list[Verdict]:
        """`gone` only where PostgreSQL has it neither: what it has there is not leased, so the receipt is stale.

        A row whose end waits for its flush does not count. A flush between two looks is why PostgreSQL is asked twice.
        """
        missing = [i for i, verdict in enumerate(verdicts) if verdict == "gone"]
        try:
            if there := await self._in_store(shard, items, missing):
                there = [i for i in there if not await self._ended(shard, items[i].id)]
                there = await self._in_store(shard, items, there)
        except Fault as fault:
            raise _unavailable(fault) from fault
        for i in there:
            verdicts[i] = "stale"
        return verdicts

    async def _in_store(self, shard: Shard, items: Sequence[Settle | Extend], at: Sequence[int]) -> list[int]:
        """Which of the items at these places PostgreSQL has, under that topic."""
        rows = await shard.store.existing([items[i].id for i in at]) if at else {}
        return [i for i in at if rows.get(items[i].id) == f"{items[i].namespace}/{items[i].topic}"]

    async def _ended(self, shard: Shard, id: int) -> bool:
        data, _, _ = await shard.cache.record(id.to_bytes(8))
        return data is not None and State(data[:1]) in GONE

    # -- dead letters --------------------------------------------------------------------------------------------------------

    async def dead_letters(self, namespace: str, topic: str, limit: int, after: int = 0) -> list[DeadLetter]:
        name = TopicName(namespace, topic)
        shard = self._shards[self._slots.shard(name)]
        try:
            fresh = await shard.cache.dead(str(name), limit, after)  # first Redis: what a flush moves meanwhile is found in PostgreSQL
            rows = await shard.store.dead_page(name, after, limit)
        except Fault as fault:
            raise _unavailable(fault) from fault
        found = {id: DeadLetter(id, *name, priority, payload, _bytes(metadata), attempts, error, created, died)
                 for id, priority, attempts, error, created, died, payload, metadata in rows}  # fmt: skip
        for data, body, error in fresh:
            r, b = record.unpack(data), record.open_body(body)
            text = error.decode() if error is not None else None
            letter = DeadLetter(r.id, *name, r.priority, b.payload, b.metadata, r.attempts, text, b.created_us, shard.now_us())
            found.setdefault(r.id, letter)
        return [found[id] for id in sorted(found)[:limit]]

    async def delete_dead(self, namespace: str, topic: str, ids: Sequence[int]) -> list[Verdict]:
        name = TopicName(namespace, topic)
        shard = self._shards[self._slots.shard(name)]
        try:
            await self._until_flushed(shard, ids)
            deleted = await shard.store.delete_dead(name, ids)
        except Fault as fault:
            raise _unavailable(fault) from fault
        return ["ok" if id in deleted else "gone" for id in ids]

    async def _until_flushed(self, shard: Shard, ids: Sequence[int]) -> None:
        """Dead letters are deleted in one place, PostgreSQL: those still in Redis are flushed first."""
        deadline = self._clock.monotonic() + ROOM_WAIT_S
        waiting = list(ids)
        while True:
            data = [(id, (await shard.cache.record(id.to_bytes(8)))[0]) for id in waiting]
            waiting = [id for id, r in data if r is not None and r[:1] == State.DEAD.value]
            if not waiting:
                return
            if self._clock.monotonic() >= deadline:
                raise Unavailable("the dead letters are not flushed yet", retry_after=1)
            await shard.cache.ask(FLUSH)
            await asyncio.sleep(FLUSH_PAUSE_S)

    # -- what can be seen ----------------------------------------------------------------------------------------------------

    async def topics(self, namespaces: Sequence[str] | None) -> list[TopicStats]:
        try:
            per_shard = await asyncio.gather(*(self._topics_of(shard, namespaces) for shard in self._shards))
        except Fault as fault:
            raise _unavailable(fault) from fault
        return sorted(chain.from_iterable(per_shard), key=lambda t: (t.namespace, t.topic))

    async def _topics_of(self, shard: Shard, namespaces: Sequence[str] | None) -> list[TopicStats]:
        wanted = None if namespaces is None else frozenset(namespaces)
        hot = [t for t in await shard.cache.topics() if wanted is None or t.partition("/")[0] in wanted]
        depths = dict(zip(hot, await shard.cache.depths(hot), strict=True))
        counts = {f"{row[0]}/{row[1]}": row[2:] for row in await shard.store.topic_counts(namespaces)}
        found = []
        for topic in sorted({*depths, *counts}):
            d, row = depths.get(topic), counts.get(topic)
            pending, dead = row[:2] if row else (0, 0)
            ledger = dict(zip(("enqueued", "acked", "dead", "expired", "purged", "cancelled"), row[2:], strict=True)) if row else {}
            namespace, _, name = topic.partition("/")
            leased, unflushed = (d.leased, d.unflushed) if d else (0, 0)
            found.append(
                TopicStats(
                    namespace, name, shard.number, d.ready if d else 0, d.delayed if d else 0, leased,
                    max(0, pending + unflushed - leased), dead + (d.dead if d else 0), ledger,
                )
            )  # fmt: skip
        return found

    async def message(self, id: int) -> MessageStatus | None:
        for shard in self._shards:
            try:
                data, body, error = await shard.cache.record(id.to_bytes(8))
                if data is not None:
                    if State(data[:1]) in GONE or body is None:
                        return None
                    r, b = record.unpack(data), record.open_body(body)
                    return MessageStatus(
                        id, *r.topic_name, STATES[r.state.decode()], r.priority, r.attempts, r.max_retries, b.payload, b.metadata,  # type: ignore[arg-type]
                        r.due, b.created_us, error.decode() if error is not None else None,
                    )  # fmt: skip
                row = await shard.store.message_by_id(id)
            except Fault as fault:
                raise _unavailable(fault) from fault
            if row is not None:
                namespace, topic, dead, priority, attempts, retries, payload, metadata, due, created, text = row
                state = "dead" if dead else "waiting" if due <= shard.now_us() else "delayed"
                return MessageStatus(
                    id, namespace, topic, state, priority, attempts, retries, payload, _bytes(metadata), due, created, text  # type: ignore[arg-type]
                )  # fmt: skip
        return None

    def healthy(self) -> dict[int, bool]:
        return {shard.number: shard.serving.is_set() for shard in self._shards}

    async def wake_loop(self, shard: Shard) -> None:
        """Wakes waiters when Redis says so, and every LOOK_S to be sure."""
        while True:
            try:
                topic = await shard.cache.wait_for_wake(shard.node, LOOK_S)
            except Fault:
                await asyncio.sleep(0.2)
                continue
            if topic is None:
                self._waiters.look()
                continue
            namespace, _, name = topic.partition("/")
            if not self._waiters.wake(TopicName(namespace, name)):
                try:
                    await shard.cache.pass_wake(shard.epoch, topic)
                except Fault:
                    continue


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _request_hash(messages: Sequence[NewMessage], key: str) -> bytes:
    """Scope of a request's key: its namespaces, and the shard."""
    return _hash("\0".join([*sorted({m.namespace for m in messages}), "", key]).encode())


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _receipt(text: str | None) -> bytes:
    """The 12 bytes of a receipt; empty: any; of a form that never was ours: one that matches nothing."""
    if text is None:
        return b""
    try:
        epoch, _, number = text.partition("-")
        return int(epoch, 16).to_bytes(4) + int(number, 16).to_bytes(8)
    except (ValueError, OverflowError):
        return bytes(12)


def _delivery(data: bytes, body: bytes) -> Delivery:
    r = record.unpack(data)
    b = record.open_body(body)
    namespace, _, topic = r.topic.partition("/")
    receipt = f"{int.from_bytes(r.receipt[:4]):x}-{int.from_bytes(r.receipt[4:]):x}"
    return Delivery(
        r.id,
        namespace,
        topic,
        r.priority,
        b.payload,
        b.metadata,
        r.due,
        b.created_us,
        r.attempts + 1,
        r.max_retries,
        receipt,
        r.until,
    )


def _key_reused(item: int) -> KeyReused:
    return KeyReused("this idempotency key was used with another message", item=item, field="idempotency_key")


def _unavailable(fault: Fault) -> Unavailable:
    what = "PostgreSQL" if isinstance(fault, StoreLost) else "Redis" if isinstance(fault, CacheLost | EpochEnded) else "a store"
    return Unavailable(f"{what} of this shard cannot be reached: unknown whether this happened", retry_after=1)
