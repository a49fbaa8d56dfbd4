"""The broker in memory has the methods of `Client`, and goes by a clock that is passed in.

It keeps what users of the API can see: strict key order, delays, leases and receipts, attempts and backoff, dead
letters, TTL, idempotency keys, results. It keeps nothing for long, and knows no durability, quotas, schedules or
waiting: a fetch that finds nothing says so at once. `tests/conformance` holds it against the real broker.
"""

import math
from collections.abc import Container, Sequence
from typing import Unpack

import msgspec

from mqueue import backoff, wire
from mqueue import message as m
from mqueue.client import protocol
from mqueue.client.protocol import EnqueueOptions, Extended, Settled
from mqueue.clock import Clock
from mqueue.errors import BufferFull, Invalid, JobFailed, NotFound, Pending
from mqueue.schedule import EPOCH
from mqueue.testing.clock import MICROSECOND
from mqueue.testing.memory.keys import Keys
from mqueue.testing.memory.order import Order
from mqueue.testing.memory.results import Results
from mqueue.testing.memory.stored import Stored, done
from mqueue.testing.memory.told import Told
from mqueue.testing.memory.unscheduled import Unscheduled

MESSAGES_MAX = 100_000
EXPIRED = "the lease expired: the worker died, hung, or took longer than its lease"

_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.Decoder(wire.EnqueueItem).decode


class MemoryBroker(Unscheduled):
    """It is not for several threads. Everything happens at the time that `clock` shows; backoff is not
    shortened by chance.
    """

    def __init__(self, clock: Clock, *, first_id: int = 1) -> None:
        self._clock = clock
        self._stored: dict[int, Stored] = {}
        self._order = Order(self._find)
        self._keys = Keys(clock)
        self._results = Results(clock)
        self._told = Told(clock)
        self._last_id = first_id - 1
        self._receipts = 0

    # ── the methods of Client ──

    def enqueue(self, topic: str, payload: bytes, **options: Unpack[EnqueueOptions]) -> int:
        return self.enqueue_many([wire.EnqueueItem(topic=topic, payload=payload, **options)])[0]

    def enqueue_many(self, items: Sequence[wire.EnqueueItem], *, durability: m.Durability = "wal") -> list[int]:
        """Enqueue all or none; nothing is durable here. Raises Invalid, KeyReused, BufferFull."""
        checked = [_checked(item, index) for index, item in enumerate(items)]
        if len(self._stored) + len(checked) > MESSAGES_MAX:
            raise BufferFull(f"more than {MESSAGES_MAX:,} messages in memory")
        self._keys.check(checked)
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
        """`wait` changes nothing: nobody else could bring a message meanwhile."""
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
        page, weight = [], 0
        for s in found[:limit]:
            if weight >= m.PAGE_MAX:
                break
            page.append(s.dead_item())
            weight += s.weight
        return page

    def delete_dead(self, topic: str, ids: Sequence[int], *, namespace: str = m.DEFAULT_NAMESPACE) -> list[wire.Verdict]:
        there = {s.id for s in self.dead() if s.name == (namespace, topic)}
        for id in there.intersection(ids):
            del self._stored[id]
        return [wire.Verdict(id, "ok" if id in there else "gone") for id in ids]

    def topics(self, namespace: str | None = None) -> list[wire.Topic]:
        by_name: dict[m.TopicName, list[str]] = {}
        now = self._clock.wall_us()
        for s in self._look():
            by_name.setdefault(s.name, []).append(s.state(now))
        return [
            wire.Topic(
                namespace=name.namespace, topic=name.topic, shard=0, waiting=0,
                ready=states.count("ready"), delayed=states.count("delayed"), leased=states.count("leased"), dead=states.count("dead"),
            )
            for name, states in sorted(by_name.items())
            if namespace in (None, name.namespace)
        ]  # fmt: skip

    def workers(self, namespace: str | None = None) -> list[wire.Worker]:
        """Returns those that `tell` was told of in the last 10 s."""
        return self._told.workers(namespace)

    def tell(self, worker: wire.Worker) -> None:
        self._told.hear(worker)

    def message(self, id: int) -> wire.Status | None:
        if (found := self._find(id)) is not None:
            return found.status(self._clock.wall_us())
        return None if (kept := self._results.find(id)) is None else done(id, kept)

    def result(
        self, id: int, *, topic: str | None = None, namespace: str = m.DEFAULT_NAMESPACE, wait: float = 0.0, within: float = math.inf
    ) -> bytes:
        """`wait` and `within` change nothing, as in `fetch`. Raises Pending, JobFailed, NotFound."""
        name = None if topic is None else m.TopicName(namespace, topic)
        kept, found = self._results.find(id), self._find(id)
        if kept is not None and name in (None, kept.name):
            return kept.value
        if found is None or name not in (None, found.name):
            raise NotFound(f"no message {id}, and no result of it: it left none, or its time is over")
        if found.dead:
            raise JobFailed(found.error or "")
        raise Pending(f"the message is {found.state(self._clock.wall_us())}")

    def cancel(self, id: int) -> wire.Cancel:
        """A message that is leased ends as its worker settles it, or its lease ends."""
        found = self._find(id)
        if found is None or found.dead:
            return wire.Cancel(id, "gone")
        if found.leased:
            found.cancelling = True
            self._told.cancel(id, found.item.namespace)
            return wire.Cancel(id, "cancelling")
        del self._stored[id]
        return wire.Cancel(id, "cancelled")

    def cancelled(self, namespaces: Sequence[str], *, since: str | None = None, wait: float = 0.0) -> wire.Cancelled:
        """`wait` changes nothing, as in `fetch`."""
        return self._told.cancelled(namespaces, since)

    def health(self) -> bool:
        return True

    def ready(self) -> wire.Ready:
        return wire.Ready(status="ready", shards=[wire.ShardReady(shard=0, mode="hot", redis="ok", postgres="ok", wal="ok")])

    def close(self) -> None:
        """Nothing is open."""

    # ── what tests ask beside ──

    def due(self) -> list[Stored]:
        """Returns what a fetch of all topics of all namespaces would bring, in key order."""
        now = self._clock.wall_us()
        return sorted((s for s in self._look() if s.state(now) == "ready"), key=lambda s: s.key)

    def first_due(self, among: Container[int]) -> Stored | None:
        """Returns the first of `due` that has one of these ids, without a look at all of them."""
        return self._order.first(self._clock.wall_us(), among)

    def next_us(self, among: Container[int]) -> int | None:
        """Returns when the next of these ids comes (µs since 1970), where none is due."""
        return self._order.next_us(among)

    def live(self) -> list[Stored]:
        """Returns what has not ended, by id."""
        return [s for s in self._look() if not s.dead]

    def dead(self) -> list[Stored]:
        return [s for s in self._look() if s.dead]

    def lease(self, s: Stored, lease: float | None = None) -> wire.Message:
        self._receipts += 1
        seconds = lease or s.lease_s
        s.receipt, s.until_us = f"1-{self._receipts}", self._clock.wall_us() + int(seconds * 1e6)
        self._order.put(s, self._clock.wall_us())
        return s.message(s.receipt, seconds)

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
            if item.retry_after is not None:
                s.due_us, s.turn = now + int(item.retry_after * 1e6), s.turn + 1
        else:
            error = (item.error or "").replace("\0", "\N{REPLACEMENT CHARACTER}").encode()[: m.ERROR_MAX].decode(errors="ignore")
            self._fail(s, error or None, dead=kind == "bury")
            after = item.retry_after
            s.due_us = now + (backoff.delay_us(s.attempts, 0.0) if after is None else int(after * 1e6))
        self._order.put(s, now)
        return verdict

    # ── inside ──

    def _put(self, item: wire.EnqueueItem) -> int:
        """Makes a message, unless its idempotency key has one, or one waits under its unique key. Returns its id."""
        if (known := self._keys.find(item)) is not None:
            return known
        if item.unique_key is not None and (waiting := self._waiting(item)) is not None:
            return waiting.id
        self._last_id += 1
        now = self._clock.wall_us()
        due = now + int((item.delay or 0) * 1e6) if item.deliver_after is None else (item.deliver_after - EPOCH) // MICROSECOND
        expires = None if item.ttl is None else now + int(item.ttl * 1e6)
        made = self._stored[self._last_id] = Stored(self._last_id, item, now, due, expires)
        self._order.put(made, now)
        self._keys.keep(item, self._last_id)
        return self._last_id

    def _waiting(self, item: wire.EnqueueItem) -> Stored | None:
        """Returns the message that waits under the same unique key."""
        of_key = (s for s in self._look() if s.item.unique_key == item.unique_key and s.name == (item.namespace, item.topic))
        return next((s for s in of_key if not s.leased and not s.dead), None)

    def _look(self) -> list[Stored]:
        """Returns all there is, by id, once leases and TTLs that are over have ended."""
        return [s for s in list(self._stored.values()) if self._stays(s)]

    def _find(self, id: int) -> Stored | None:
        s = self._stored.get(id)
        return s if s is not None and self._stays(s) else None

    def _stays(self, s: Stored) -> bool:
        """Is it there still, once its lease and its TTL have ended where they are over?"""
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
        """Returns the message, if it is leased under that receipt, and the verdict."""
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
            self._order.put(s, self._clock.wall_us())
        return verdict


def _checked(item: wire.EnqueueItem, index: int) -> wire.EnqueueItem:
    """Returns a copy that went over the wire: as strict as the broker, and out of the caller's reach."""
    try:
        copy = _unpack(_pack(item))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"item {index}: {error}", item=index) from error
    if copy.delay is not None and copy.deliver_after is not None:
        raise Invalid(f"item {index}: delay and deliver_after say the same in two ways", item=index, field="delay")
    return copy
