"""The enqueuer makes drafts of messages, gives them to the committers of their shards, and keeps what their idempotency
keys promise.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from typing import Any

from mqueue.broker.commit.batch import Draft, LookAgain, Repeated
from mqueue.broker.commit.committer import Committer
from mqueue.broker.engine.room import Room
from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.format import record
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import APART, COLD, FLUSH_WAIT_S, HOT, Shard
from mqueue.broker.slots import SlotMap
from mqueue.broker.store.rows import FLUSHED
from mqueue.clock import Clock
from mqueue.errors import BufferFull, InFlight, Invalid, KeyReused, Unavailable
from mqueue.message import REQUEST_KEY_S, TIME_MAX_US, Accepted, Durability, NewMessage, RequestKey, TopicName, by_namespace

ROOM_WAIT_S = 5.0
NO_LOOK = bytes(16)  # it is of no epoch, so a script answers that the broker must look, where that may matter


class Enqueuer:
    def __init__(
        self,
        shards: Sequence[Shard],
        committers: Sequence[Committer],
        slots: SlotMap,
        metrics: Metrics,
        clock: Clock,
        *,
        lease_s: float,
        max_retries: int,
        idempotency_s: float,
        postgres_namespaces: Sequence[str] = (),
    ) -> None:
        self._shards = shards
        self._committers = committers
        self._rooms = [Room(shard) for shard in shards]
        self._slots = slots
        self._metrics = metrics
        self._clock = clock
        self._lease_ms = int(lease_s * 1000)
        self._max_retries = max_retries
        self._postgres_namespaces = frozenset(postgres_namespaces)
        self._key_ttl_us = int(idempotency_s * 1e6)

    async def enqueue(self, messages: Sequence[NewMessage], key: RequestKey | None = None, durability: Durability = "wal") -> Accepted:
        drafts = [self._draft(m, i) for i, m in enumerate(messages)]
        _check_keys(drafts)
        by_shard: dict[int, list[int]] = defaultdict(list)
        for i, m in enumerate(messages):
            by_shard[self._slots.shard(TopicName(m.namespace, m.topic))].append(i)
        ids: list[int] = [0] * len(messages)
        key_hash = _request_hash(messages, key.key) if key is not None else b""
        body_hash = key.body_hash if key is not None else b""
        shared = key is not None and any(d.unique for d in drafts)
        if shared:
            _share_key(drafts, key_hash, body_hash)
            key_hash = body_hash = b""
        try:
            await _all([self._enqueue(shard, drafts, items, ids, key_hash, body_hash) for shard, items in by_shard.items()])
        except KeyReused as error:
            if not shared:
                raise
            raise KeyReused("this Idempotency-Key was used with another request", field="Idempotency-Key") from error
        namespaces = by_namespace(messages)
        if durability == "postgres" or not self._postgres_namespaces.isdisjoint(namespaces):
            await asyncio.gather(*(self._until_flushed(self._shards[number]) for number in by_shard))
        for namespace, count in namespaces.items():
            self._metrics.enqueued(namespace, count)
        hot = any(self._shards[number].buffers for number in by_shard) and durability == "wal"
        return Accepted(ids, "wal" if hot and self._postgres_namespaces.isdisjoint(namespaces) else "postgres")

    async def _until_flushed(self, shard: Shard) -> None:
        """Waits until all that this broker has enqueued until now is in PostgreSQL. Past FLUSH_WAIT_S the answer is
        503, and it is only in the log.
        """
        if shard.mode == COLD:
            return  # what was taken before is there since its epoch closed
        try:
            await shard.until_flushed(shard.previous, FLUSH_WAIT_S)
        except Fault as fault:
            raise Unavailable("PostgreSQL has not taken it yet: the messages are in the log, and will come", retry_after=1) from fault

    def _draft(self, m: NewMessage, item: int) -> Draft:
        topic = f"{m.namespace}/{m.topic}".encode()
        unique = _hash(topic + b"\0\0" + m.unique_key.encode()) if m.unique_key is not None else None
        body = record.body(0, m.payload, m.metadata, m.idempotency_key, unique)[record.CREATED.size :]
        delay_us = int(m.delay * 1e6) if m.delay else 0
        if delay_us and self._clock.wall_us() + delay_us >= TIME_MAX_US:
            raise Invalid("delay: too far in the future", item=item, field="delay")
        draft = Draft(
            topic=topic,
            priority=m.priority,
            body=body,
            deliver_after_us=m.deliver_after_us,
            delay_us=delay_us,
            ttl_us=int(m.ttl * 1e6) if m.ttl is not None else 0,
            max_retries=self._max_retries if m.max_retries is None else m.max_retries,
            lease_ms=self._lease_ms if m.lease is None else int(m.lease * 1000),
            unique=unique or b"",
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
        if shard.mode == APART and (key_hash or any(drafts[i].key_hash for i in items)):
            raise shard.keys_are_away()
        try:
            known = await self._commit(number, drafts, items, key_hash, body_hash)
        except Fault as fault:
            raise unavailable(fault) from fault
        for i in items:
            ids[i] = known[i]

    async def _commit(self, number: int, drafts: Sequence[Draft], items: Sequence[int], key_hash: bytes, body_hash: bytes) -> dict[int, int]:
        """Gives what is new to the committer, and again where it must look again or wait, until ROOM_WAIT_S is over.
        Returns the ids by item.
        """
        shard = self._shards[number]
        epoch, known = await self._look(shard, drafts, items)
        if key_hash:
            drafts[items[0]].rows = NO_LOOK
            if (
                shard.mode == HOT
                and shard.keys_until > shard.now_us()
                and (ids := await self._look_for_request(shard, drafts[items[0]], key_hash, body_hash))
            ):
                return dict(zip(items, ids, strict=True))
        size = sum(drafts[i].size for i in items if i not in known)
        deadline = self._clock.monotonic() + ROOM_WAIT_S
        refused = False
        while new := [i for i in items if i not in known]:
            await self._rooms[number].wait(size, deadline - self._clock.monotonic(), refused=refused)
            refused = False
            try:
                made = await self._committers[number].enqueue([drafts[i] for i in new], key_hash, body_hash, epoch)
            except Repeated:
                made = await self._ids_of_request(shard, key_hash)
            except KeyReused as error:
                error.item = None if error.item is None else new[error.item]
                raise
            except LookAgain:  # keys that Redis knew may be PostgreSQL's now
                if self._clock.monotonic() >= deadline:
                    raise Unavailable("the keys of these messages are being flushed again and again", retry_after=1) from None
                epoch, known = await self._look(shard, drafts, items)
                if key_hash and (ids := await self._look_for_request(shard, drafts[items[0]], key_hash, body_hash)):
                    return dict(zip(items, ids, strict=True))
                continue
            except (InFlight, BufferFull) as error:
                if self._clock.monotonic() >= deadline:
                    raise
                if isinstance(error, InFlight):  # at another broker, whose disk may not have it yet
                    await shard.hurry_flush()
                else:
                    refused = True
                continue
            known.update(zip(new, made, strict=True))
        return known

    async def _look_for_request(self, shard: Shard, first: Draft, key_hash: bytes, body_hash: bytes) -> list[int] | None:
        """Returns the ids that PostgreSQL has under the key of a whole request; None where it has none. `first`: of its
        drafts; it tells the script how often keys had been moved there before this look.
        """
        epoch = shard.epoch
        if shard.mode != HOT:
            return None  # the transaction looks
        moved, shard.keys_until = await shard.cache.moved_keys()
        first.rows = FLUSHED.pack(epoch, moved)
        if (known := await shard.store.request_key(key_hash, shard.now_us())) is None:
            return None
        if known[0] != body_hash:
            raise KeyReused("this Idempotency-Key was used with another request", field="Idempotency-Key")
        return record.unpack_runs(known[1])

    async def _look(self, shard: Shard, drafts: Sequence[Draft], items: Sequence[int]) -> tuple[int, dict[int, int]]:
        """Looks as `_known_keys` does; the drafts with a unique key get what PostgreSQL has under it."""
        epoch, known = await self._known_keys(shard, drafts, items)
        unique = [drafts[i] for i in items if drafts[i].unique and i not in known]
        if not unique:
            return epoch, known
        await shard.wait_serving()
        epoch = epoch or shard.epoch
        # on the cold path the transaction looks
        found = {b"": NO_LOOK} if shard.mode == COLD else await shard.store.unique_rows([*{d.unique for d in unique}])
        for d in unique:
            d.rows = found.get(d.unique, found[b""])
        return epoch, known

    async def _known_keys(self, shard: Shard, drafts: Sequence[Draft], items: Sequence[int]) -> tuple[int, dict[int, int]]:
        """Returns the items whose idempotency key only PostgreSQL knows, as item → id of the first message, and the
        epoch of this look: 0 where no item has a key. It is one SELECT for a request.

        The script checks again what Redis knows, but refuses a request whole: only here the item to blame is known.
        """
        keyed = [i for i in items if drafts[i].key_hash]
        if not keyed:
            return 0, {}
        await shard.wait_serving()
        epoch = shard.epoch
        cold = shard.mode == COLD
        in_redis = [None] * len(keyed) if cold else await shard.cache.has_key([drafts[i].key_hash for i in keyed], shard.now_us())
        for i, told in zip(keyed, in_redis, strict=True):
            if told is not None and record.IDEMPOTENCY.unpack(told)[1] != drafts[i].body_hash:
                raise _key_reused(i)
        missing = [i for i, told in zip(keyed, in_redis, strict=True) if told is None]
        if not missing:
            return epoch, {}
        rows = await shard.store.find_keys([drafts[i].key_hash for i in missing], shard.now_us())
        found = {key_hash: (body_hash, id) for key_hash, body_hash, id, _ in rows}
        known: dict[int, int] = {}
        for i in missing:
            if drafts[i].key_hash in found:
                body_hash, id = found[drafts[i].key_hash]
                if body_hash != drafts[i].body_hash:
                    raise _key_reused(i)
                known[i] = id
        return epoch, known

    async def _ids_of_request(self, shard: Shard, key_hash: bytes) -> list[int]:
        """Returns what this request's first try was given."""
        if shard.mode == COLD and (known := await shard.store.request_key(key_hash, shard.now_us())):
            return record.unpack_runs(known[1])
        [told] = await shard.cache.has_key([key_hash], shard.now_us())
        if told is None:
            raise Unavailable("the idempotency key of this request has just been forgotten: it was enqueued before", retry_after=1)
        return record.unpack_runs(told[record.IDEMPOTENCY.size :])


async def _all(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Runs each to its end, whatever becomes of the others."""
    if len(parts) == 1:
        return await parts[0]
    for error in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error
    return None


def _check_keys(drafts: Sequence[Draft]) -> None:
    """Refuses one key for two messages of a request: the script would not say which it was."""
    bodies: dict[bytes, bytes] = {}
    for item, d in enumerate(drafts):
        if d.key_hash and bodies.setdefault(d.key_hash, d.body_hash) != d.body_hash:
            raise _key_reused(item)


def _share_key(drafts: Sequence[Draft], key_hash: bytes, body_hash: bytes) -> None:
    """Gives each message a key made of the request's: that key stands for ids in a row, and of messages with unique
    keys some may be older ones.
    """
    for item, d in enumerate(drafts):
        d.key_hash, d.body_hash, d.key_ttl_us = _hash(key_hash + item.to_bytes(4)), body_hash, int(REQUEST_KEY_S * 1e6)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _request_hash(messages: Sequence[NewMessage], key: str) -> bytes:
    """Hashes a request's key within its scope: its namespaces, and the shard."""
    return _hash("\0".join([*sorted({m.namespace for m in messages}), "", key]).encode())


def _key_reused(item: int) -> KeyReused:
    return KeyReused("this idempotency key was used with another message", item=item, field="idempotency_key")
