"""A batch holds the messages that are drafted and the requests that wait, and decides what they are told. This is pure,
but for the ids that are taken.
"""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mqueue import backoff
from mqueue.broker.cache.calls import Enqueue, Outcome, SettleArgs
from mqueue.broker.faults import CacheRefused, Refusal, unavailable
from mqueue.broker.format import record
from mqueue.broker.format.entries import Enqueued
from mqueue.broker.wal.ids import IdSource
from mqueue.errors import BufferFull, InFlight, KeyReused
from mqueue.message import REQUEST_KEY_S, Settle

DELAYS_MAX = 14  # past 2^12 s the cap of one hour holds


@dataclass(slots=True)
class Draft:
    """A message on its way: its body is packed; its number and its time come with the batch. Durations are in µs, 0 for
    none.
    """

    topic: bytes
    priority: int
    body: bytes  # without its created_at
    deliver_after_us: int | None
    delay_us: int
    ttl_us: int
    max_retries: int
    lease_ms: int
    key_hash: bytes = b""
    body_hash: bytes = b""
    key_ttl_us: int = 0
    unique: bytes = b""
    rows: bytes = b""  # what PostgreSQL has under that key (store/rows.py)

    @property
    def size(self) -> int:
        """Returns how many bytes it takes in the write-behind buffer."""
        return record.buffered(record.CREATED.size + len(self.body), len(self.topic))


@dataclass(slots=True)
class EnqueueRequest:
    """The messages of one request that wait for a batch. `key_hash`: of the key of the whole request; empty for none.
    `epoch`: the only one it may be applied in; 0: any.
    """

    drafts: Sequence[Draft]
    size: int
    done: asyncio.Future[list[int]]
    key_hash: bytes = b""
    body_hash: bytes = b""
    epoch: int = 0

    @property
    def keyed(self) -> bool:
        return bool(self.key_hash) or any(d.key_hash or d.unique for d in self.drafts)


class LookAgain(Exception):
    """The epoch has changed since the keys were looked for, or a flush has come since the unique ones were."""


class Repeated(Exception):
    """This request was enqueued before, under the same key: Redis knows its ids."""


@dataclass(slots=True)
class SettleRequest:
    settles: Sequence[Settle]
    args: Sequence[SettleArgs]
    done: asyncio.Future[list[Outcome]]


@dataclass(slots=True)
class Batch:
    enqueues: list[EnqueueRequest] = field(default_factory=list)
    settles: list[SettleRequest] = field(default_factory=list)

    def refuse_others(self, epoch: int) -> None:
        """Tells enqueues that belong to another epoch to look again."""
        for request in self.enqueues:
            if request.epoch not in (0, epoch) and not request.done.done():
                request.done.set_exception(LookAgain())
        self.enqueues = [request for request in self.enqueues if request.epoch in (0, epoch)]

    def refuse_keyed(self, error: Exception) -> None:
        """Refuses enqueues with an idempotency key, of their own or of a message, or with a unique key."""
        for request in self.enqueues:
            if request.keyed and not request.done.done():
                request.done.set_exception(error)
        self.enqueues = [request for request in self.enqueues if not request.keyed]

    def fail(self, error: Exception) -> None:
        futures: list[asyncio.Future[Any]] = [request.done for request in self.enqueues]
        futures += [request.done for request in self.settles]
        for future in futures:
            if not future.done():
                future.set_exception(error)


class Stamp(NamedTuple):
    """What a batch gives its messages: origin, the shard clock, and when those are due that are due at once: not before
    anything that was due when their request came.
    """

    node: int
    sequence: int
    now: int
    at_once: int


def number(request: EnqueueRequest, ids: IdSource, stamp: Stamp) -> list[Enqueued]:
    """Stamps the messages of a request with ids, their batch's number, and times."""
    node, sequence, now, at_once = stamp
    created = record.CREATED.pack(8, at_once)
    key_hash, key = request.key_hash, b""
    joins = False
    messages: list[Enqueued] = []
    for id, d in zip(ids.take(len(request.drafts)), request.drafts, strict=True):
        due = d.deliver_after_us if d.deliver_after_us is not None else now + d.delay_us if d.delay_us else at_once
        body = created + d.body
        data = record.new(
            priority=d.priority, due=due, id=id, expires=now + d.ttl_us if d.ttl_us else 0, max_retries=d.max_retries,
            lease_ms=d.lease_ms, node=node, sequence=sequence, size=len(body), topic=d.topic, unique=bool(d.unique),
        )  # fmt: skip
        if d.key_hash:
            own = record.IDEMPOTENCY.pack(id, d.body_hash, node, sequence, now + d.key_ttl_us, 0, b"u")
            messages.append(Enqueued(data, body, d.key_hash, own, False, d.unique, d.rows))
            continue
        if key_hash:
            key = record.IDEMPOTENCY.pack(id, request.body_hash, node, sequence, now + int(REQUEST_KEY_S * 1e6), 0, b"r")
        messages.append(Enqueued(data, body, key_hash, key, joins, d.unique, d.rows))
        joins, key_hash, key = bool(request.key_hash), b"", b""
    return messages


def for_script(group: int, request: Sequence[Enqueued]) -> list[Enqueue]:
    """Returns the messages of a request as `apply` takes them; a request's key brings the ids with it."""
    enqueues = [Enqueue(group, m.record, m.body, m.key_hash, m.key, m.unique, m.rows) for m in request]
    if request[0].key[-1:] == b"r":
        ids = record.pack_runs([int.from_bytes(m.record[record.ID]) for m in request])
        enqueues[0] = enqueues[0]._replace(key=request[0].key + ids)
    return enqueues


def refusal(verdicts: Sequence[tuple[bytes, bytes]], keyed: bool) -> Exception | None:
    """Returns why a request was refused whole, if it was. `keyed`: it has a key of its own."""
    letters = {letter for letter, _ in verdicts}
    if letters & {b"w", b"f"}:
        return _no_room(letters)
    if b"r" in letters:
        return Repeated()
    if b"m" in letters and keyed:
        return KeyReused("this Idempotency-Key was used with another request", field="Idempotency-Key")
    if b"m" in letters:
        item = next(i for i, (letter, _) in enumerate(verdicts) if letter == b"m")
        return KeyReused("this idempotency key was used with another message", item=item, field="idempotency_key")
    if b"p" in letters:
        return InFlight("the first request with this key is not durable yet", retry_after=1)
    return LookAgain() if b"l" in letters else None


def _no_room(letters: set[bytes]) -> Exception:
    if b"w" in letters:
        return unavailable(CacheRefused(Refusal.FULL, "Redis is full"))
    return BufferFull("the write-behind buffer is full: PostgreSQL does not keep up", retry_after=1)


def delays(jitter: float, retry_after: float | None) -> bytes:
    """Returns the µs until the next delivery, by how many attempts failed before, for one settle."""
    if retry_after is not None:
        return struct.pack(">d", retry_after * 1e6)
    return struct.pack(f">{DELAYS_MAX}d", *(backoff.delay_us(n + 1, jitter) for n in range(DELAYS_MAX)))
