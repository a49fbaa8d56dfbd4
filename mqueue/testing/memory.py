"""A broker in memory, with the methods of `Client`, on a clock that is passed in.

It keeps what users of the API can see: strict key order, delays, leases and receipts, attempts and backoff, dead letters, TTL,
idempotency keys, results. It keeps nothing for long, and knows no durability, quotas or waiting: a fetch that finds nothing says so
at once. `tests/conformance` holds it against the real broker.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Unpack

import msgspec

from mqueue import backoff, wire
from mqueue import message as m
from mqueue.client import protocol
from mqueue.client.protocol import EnqueueOptions, Extended, Settled
from mqueue.clock import Clock
from mqueue.errors import BufferFull, Invalid, JobFailed, KeyReused, NotFound, Pending
from mqueue.testing.clock import EPOCH, MICROSECOND
from mqueue.testing.results import Kept, Results

LEASE_S = 30.0  # as `mqueue broker` has them by default
RETRIES = 3
MESSAGES_MAX = 100_000
State = Literal["ready", "delayed", "leased", "dead"]
EXPIRED = "the lease expired: the worker died, hung, or took longer than its lease"

_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.Decoder(wire.EnqueueItem).decode


@dataclass(slots=True)
class Stored:
    """A message that waits, is leased (`receipt`, `until_us`) or is dead (`died_us`). Times: µs since 1970."""

    id: int
    item: wire.EnqueueItem
    created_us: int
    due_us: int
    expires_us: int | None
    attempts: int = 0
    receipt: str | None = None
    until_us: int = 0
    died_us: int | None = None
    error: str | None = None
    cancelling: bool = False

    @property
    def key(self) -> tuple[int, int, int]:
        """Least first is the order of delivery."""
        return self.item.priority, self.due_us, self.id

    @property
    def leased(self) -> bool:
        return self.receipt is not None

    @property
    def dead(self) -> bool:
        return self.died_us is not None

    @property
    def comes_us(self) -> int:
        """When it is there to be fetched, unless its lease is renewed."""
        return max(self.due_us, self.until_us) if self.leased else self.due_us

    @property
    def name(self) -> m.TopicName:
        return m.TopicName(self.item.namespace, self.item.topic)

    @property
    def max_retries(self) -> int:
        return RETRIES if self.item.max_retries is None else self.item.max_retries

    @property
    def lease_s(self) -> float:
        return self.item.lease or LEASE_S


class MemoryBroker:
    """Not for several threads. Everything happens at the time that `clock` shows; backoff is not shortened by chance."""

    def __init__(self, clock: Clock, *, first_id: int = 1) -> None:
        self._clock = clock
        self._stored: dict[int, Stored] = {}
        self._keys: dict[tuple[m.TopicName, str], tuple[int, bytes]] = {}  # id, and hash of the message that had it first
        self._results = Results(clock)
        self._last_id = first_id - 1
        self._receipts = 0

    # ── the methods of Client ──

    def enqueue(self, topic: str, payload: bytes, **options: Unpack[EnqueueOptions]) -> int:
        return self.enqueue_many([wire.EnqueueItem(topic=topic, payload=payload, **options)])[0]

    def enqueue_many(self, items: Sequence[wire.EnqueueItem]) -> list[int]:
        """All or none. Raises Invalid, KeyReused, BufferFull."""
        checked = [_checked(item, index) for index, item in enumerate(items)]
        if len(self._stored) + len(checked) > MESSAGES_MAX:
            raise BufferFull(f"more than {MESSAGES_MAX:,} messages in memory")
        for index, item in enumerate(checked):
            if item.idempotency_key is not None:
                known = self._keys.get((m.TopicName(item.namespace, item.topic), item.idempotency_key))
                if known is not None and known[1] != _digest(item):
                    raise KeyReused(f"item {index}: idempotency key used before with another message", item=index)
        return [self._put(item) for item in checked]

    def fetch(
        self,
        topics: str | Sequence[str],
        *,
        namespace: str = m.DEFAULT_NAMESPACE,
        limit: int = 10,
        wait: float = 0.0,
        lease: float | None = None,
    ) -> list[wire.Message]:
        """`wait` counts for nothing: nobody else could bring a message meanwhile."""
        names = {topics} if isinstance(topics, str) else set(topics)
        due = [s for s in self.due() if s.item.namespace == namespace and s.item.topic in names]
        return [self.lease(s, lease) for s in due[:limit]]

    def poll(self, request: wire.Poll) -> wire.Polled:
        verdicts = [self.settle(item.kind, item) for item in request.settle]
        messages = self.fetch(request.topics, namespace=request.namespace, limit=request.limit, lease=request.lease)
        return wire.Polled(verdicts, messages)

    def ack(self, items: Sequence[Settled]) -> list[wire.Verdict]:
        return [self.settle("ack", item) for item in protocol.ack_items(items)]

    def nack(self, items: Sequence[Settled], *, error: str | None = None, retry_after: float | None = None) -> list[wire.Verdict]:
        return [self.settle("nack", item) for item in protocol.nack_items(items, error, retry_after)]

    def extend(self, items: Sequence[Extended], *, lease: float | None = None) -> list[wire.Verdict]:
        return [self._extend(item) for item in protocol.extend_items(items, lease)]

    def dead_letters(self, topic: str, *, namespace: str = m.DEFAULT_NAMESPACE, limit: int = 100, after: int = 0) -> list[wire.DeadItem]:
        found = [s for s in self.dead() if s.name == (namespace, topic) and s.id > after]
        return [_dead_item(s) for s in found[:limit]]

    def delete_dead(self, topic: str, ids: Sequence[int], *, namespace: str = m.DEFAULT_NAMESPACE) -> list[wire.Verdict]:
        there = {s.id for s in self.dead() if s.name == (namespace, topic)}
        for id in there.intersection(ids):
            del self._stored[id]
        return [wire.Verdict(id, "ok" if id in there else "gone") for id in ids]

    def topics(self, namespace: str | None = None) -> list[wire.Topic]:
        by_name: dict[m.TopicName, list[str]] = {}
        for s in self._look():
            by_name.setdefault(s.name, []).append(self._state(s))
        return [
            wire.Topic(
                namespace=name.namespace, topic=name.topic, shard=0, waiting=0,
                ready=states.count("ready"), delayed=states.count("delayed"), leased=states.count("leased"), dead=states.count("dead"),
            )
            for name, states in sorted(by_name.items())
            if namespace in (None, name.namespace)
        ]  # fmt: skip

    def message(self, id: int) -> wire.Status | None:
        if (found := self._find(id)) is not None:
            return self._status(found)
        return None if (kept := self._results.find(id)) is None else _done(id, kept)

    def result(self, id: int, *, topic: str | None = None, namespace: str = m.DEFAULT_NAMESPACE, wait: float = 0.0) -> bytes:
        """`wait` counts for nothing, as in `fetch`. Raises Pending, JobFailed, NotFound."""
        name = None if topic is None else m.TopicName(namespace, topic)
        kept, found = self._results.find(id), self._find(id)
        if kept is not None and name in (None, kept.name):
            return kept.value
        if found is None or name not in (None, found.name):
            raise NotFound(f"no message {id}, and no result of it: it left none, or its time is over")
        if found.dead:
            raise JobFailed(found.error or "")
        raise Pending(f"the message is {self._state(found)}")

    def cancel(self, id: int) -> wire.Cancel:
        """What is leased ends as its worker settles it, or its lease ends."""
        found = self._find(id)
        if found is None or found.dead:
            return wire.Cancel(id, "gone")
        if found.leased:
            found.cancelling = True
            return wire.Cancel(id, "cancelling")
        del self._stored[id]
        return wire.Cancel(id, "cancelled")

    def health(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""

    # ── what tests ask beside ──

    def due(self) -> list[Stored]:
        """What a fetch of all topics of all namespaces would bring, in key order."""
        return sorted((s for s in self._look() if self._state(s) == "ready"), key=lambda s: s.key)

    def live(self) -> list[Stored]:
        """What has not ended, by id."""
        return [s for s in self._look() if not s.dead]

    def dead(self) -> list[Stored]:
        return [s for s in self._look() if s.dead]

    def lease(self, s: Stored, lease: float | None = None) -> wire.Message:
        self._receipts += 1
        seconds = lease or s.lease_s
        s.receipt, s.until_us = f"1-{self._receipts}", self._clock.wall_us() + int(seconds * 1e6)
        return wire.Message(
            id=s.id,
            namespace=s.item.namespace,
            topic=s.item.topic,
            priority=s.item.priority,
            payload=s.item.payload,
            metadata=s.item.metadata,
            deliver_after=_moment(s.due_us),
            created_at=_moment(s.created_us),
            attempt=s.attempts + 1,
            max_retries=s.max_retries,
            receipt=s.receipt,
            lease_expires_at=_moment(s.until_us),
            lease=seconds,
        )

    def settle(self, kind: m.Kind, item: wire.SettleItem) -> wire.Verdict:
        s, verdict = self._held(item.id, item.namespace, item.topic, item.receipt)
        if kind == "ack":
            self._results.keep(item, verdict)
        if s is None:
            return verdict
        now = self._clock.wall_us()
        s.receipt = None
        if kind in ("ack", "cancel") or s.cancelling:
            del self._stored[s.id]
        elif kind == "release":
            if item.retry_after:
                s.due_us = now + int(item.retry_after * 1e6)
        else:
            error = (item.error or "").replace("\0", "\N{REPLACEMENT CHARACTER}").encode()[: m.ERROR_MAX].decode(errors="ignore")
            self._fail(s, error or None, dead=kind == "bury")
            after = item.retry_after
            s.due_us = now + (backoff.delay_us(s.attempts, 0.0) if after is None else int(after * 1e6))
        return verdict

    # ── inside ──

    def _put(self, item: wire.EnqueueItem) -> int:
        """A message, unless its idempotency key has one, or one waits under its unique key."""
        key = None if item.idempotency_key is None else (m.TopicName(item.namespace, item.topic), item.idempotency_key)
        if key is not None and (known := self._keys.get(key)) is not None:
            return known[0]
        if item.unique_key is not None and (waiting := self._waiting(item)) is not None:
            return waiting.id
        self._last_id += 1
        now = self._clock.wall_us()
        due = now + int((item.delay or 0) * 1e6) if item.deliver_after is None else (item.deliver_after - EPOCH) // MICROSECOND
        expires = None if item.ttl is None else now + int(item.ttl * 1e6)
        self._stored[self._last_id] = Stored(self._last_id, item, now, due, expires)
        if key is not None:
            self._keys[key] = self._last_id, _digest(item)
        return self._last_id

    def _waiting(self, item: wire.EnqueueItem) -> Stored | None:
        """Who waits under its unique key."""
        of_key = (s for s in self._look() if s.item.unique_key == item.unique_key and s.name == (item.namespace, item.topic))
        return next((s for s in of_key if not s.leased and not s.dead), None)

    def _look(self) -> list[Stored]:
        """All there is, by id, once leases and TTLs that are over have ended."""
        return [s for s in list(self._stored.values()) if self._stays(s)]

    def _find(self, id: int) -> Stored | None:
        s = self._stored.get(id)
        return s if s is not None and self._stays(s) else None

    def _stays(self, s: Stored) -> bool:
        """Ends its lease and its TTL where they are over: is it there still?"""
        now = self._clock.wall_us()
        if s.leased and s.until_us <= now:
            s.receipt = None
            if not s.cancelling:
                self._fail(s, None)
                s.error = EXPIRED if s.dead else s.error
        expired = s.expires_us is not None and s.expires_us <= now
        if s.leased or s.dead or not (expired or s.cancelling):
            return True
        del self._stored[s.id]
        return False

    def _fail(self, s: Stored, error: str | None, dead: bool = False) -> None:
        """A delivery ended without an ack: the attempt counts."""
        s.attempts += 1
        s.error = error or s.error
        if dead or s.attempts > s.max_retries:
            s.died_us = self._clock.wall_us()

    def _held(self, id: int, namespace: str, topic: str, receipt: str | None) -> tuple[Stored | None, wire.Verdict]:
        """The message, if it is leased under that receipt."""
        found = self._find(id)
        if found is None or found.name != (namespace, topic):
            return None, wire.Verdict(id, "gone")
        if not found.leased or receipt not in (None, found.receipt):
            return None, wire.Verdict(id, "stale")
        return found, wire.Verdict(id, "ok")

    def _extend(self, item: wire.ExtendItem) -> wire.Verdict:
        s, verdict = self._held(item.id, item.namespace, item.topic, item.receipt)
        if s is not None:
            s.until_us = self._clock.wall_us() + int((item.lease or s.lease_s) * 1e6)
        return verdict

    def _state(self, s: Stored) -> State:
        if s.dead:
            return "dead"
        if s.leased:
            return "leased"
        return "delayed" if s.due_us > self._clock.wall_us() else "ready"

    def _status(self, s: Stored) -> wire.Status:
        return wire.Status(
            id=s.id,
            namespace=s.item.namespace,
            topic=s.item.topic,
            state=self._state(s),
            priority=s.item.priority,
            attempts=s.attempts,
            max_retries=s.max_retries,
            payload=s.item.payload,
            deliver_after=_moment(s.due_us),
            created_at=_moment(s.created_us),
            error=s.error,
            metadata=s.item.metadata,
            cancelling=s.cancelling,
        )


def _checked(item: wire.EnqueueItem, index: int) -> wire.EnqueueItem:
    """A copy that went over the wire: as strict as the broker, and out of the caller's reach."""
    try:
        copy = _unpack(_pack(item))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"item {index}: {error}", item=index) from error
    if copy.delay is not None and copy.deliver_after is not None:
        raise Invalid(f"item {index}: delay and deliver_after say the same in two ways", item=index, field="delay")
    return copy


def _digest(item: wire.EnqueueItem) -> bytes:
    return hashlib.blake2b(_pack(item)).digest()


def _dead_item(s: Stored) -> wire.DeadItem:
    return wire.DeadItem(
        id=s.id,
        namespace=s.item.namespace,
        topic=s.item.topic,
        priority=s.item.priority,
        payload=s.item.payload,
        attempts=s.attempts,
        created_at=_moment(s.created_us),
        died_at=_moment(s.died_us or 0),
        error=s.error,
        metadata=s.item.metadata,
    )


def _done(id: int, kept: Kept) -> wire.Status:
    """Of the message there is nothing left but its result. The times are when that came."""
    at = _moment(kept.stored_us)
    return wire.Status(
        id=id,
        namespace=kept.name.namespace,
        topic=kept.name.topic,
        state="done",
        priority=0,
        attempts=0,
        max_retries=0,
        payload=b"",
        deliver_after=at,
        created_at=at,
    )


def _moment(us: int) -> datetime:
    return EPOCH + us * MICROSECOND
