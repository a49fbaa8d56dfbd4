"""The wire's structs become the types of `mqueue.message` here and back, with the checks a decoder cannot make. This is
pure.

Times are datetimes there and µs since 1970 here; both ways are exact. Metadata is JSON here; it leaves as it is in
JSON, and translated in msgpack.
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypeVar

import msgspec

from mqueue import message as m
from mqueue import schedule as s
from mqueue import wire
from mqueue.broker.http.decode import METADATA_CAME_MAX, NAME_RULE, TEXT_RULE, EnqueueItem, ScheduleItem, Steps, explain, is_text, wrong
from mqueue.errors import TooLarge

A = TypeVar("A")
B = TypeVar("B")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
METADATA_DEPTH_MAX = 32

_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder().decode
_read_worker = msgspec.json.Decoder(wire.Worker).decode
_to_msgpack = msgspec.msgpack.Encoder().encode
_json_metadata = msgspec.json.Decoder(dict[str, Any] | None).decode
_packed_metadata = msgspec.msgpack.Decoder(dict[str, Any] | None).decode
_LONG = f"longer than {m.METADATA_MAX} bytes as JSON"


def each(convert: Callable[[A], B], found: Sequence[A]) -> Steps[list[B]]:
    """Converts many, one at a step."""
    converted = []
    for one in found:
        converted.append(convert(one))
        yield
    return converted


def to_us(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


@lru_cache(1024)  # one fetch has few different ones
def to_time(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def check_names(namespace: str, topics: Sequence[str], item: int | None = None) -> None:
    """Refuses a line feed at the end, which the wire's pattern lets pass, since `$` matches before it."""
    if namespace[-1] == "\n":
        raise wrong(NAME_RULE, item, "namespace")
    for topic in topics:
        if topic[-1] == "\n":
            raise wrong(NAME_RULE, item, "topic")


def new_message(item: EnqueueItem, index: int, msgpack: bool) -> m.NewMessage:
    """Converts a message to enqueue; its metadata came in `msgpack`, or in JSON. Raises Invalid, naming item and
    field.
    """
    check_names(item.namespace, (item.topic,), index)
    if item.idempotency_key is not None and not is_text(item.idempotency_key):
        raise wrong(TEXT_RULE, index, "idempotency_key")
    if item.unique_key is not None and not is_text(item.unique_key):
        raise wrong(TEXT_RULE, index, "unique_key")
    deliver_after_us = None
    if item.deliver_after is not None:
        deliver_after_us = _deliver_after(item, index)
    return m.NewMessage(
        namespace=item.namespace,
        topic=item.topic,
        payload=item.payload,
        priority=item.priority,
        metadata=_metadata(_read_metadata(item.metadata, msgpack, index), index),
        deliver_after_us=deliver_after_us,
        delay=item.delay,
        ttl=item.ttl,
        idempotency_key=item.idempotency_key,
        max_retries=item.max_retries,
        lease=None if item.lease is None else max(item.lease, m.LEASE_LEAST_S),
        unique_key=item.unique_key,
    )


def _deliver_after(item: wire.EnqueueItem, index: int) -> int:
    if item.delay is not None:
        raise wrong("give either delay or deliver_after, not both", index, "delay")
    assert item.deliver_after is not None
    us = to_us(item.deliver_after)
    if not 0 <= us <= m.TIME_MAX_US:
        raise wrong("must be between the years 1970 and 2220", index, "deliver_after")
    return us


def _read_metadata(came: msgspec.Raw, msgpack: bool, index: int | None = None) -> dict[str, Any] | None:
    """Looks at its length before anything in it is looked at."""
    size = memoryview(came).nbytes
    if size == 0:
        return None
    if size > METADATA_CAME_MAX:
        raise wrong(_LONG, index, "metadata")
    try:
        return _packed_metadata(came) if msgpack else _json_metadata(came)
    except (ValueError, RecursionError) as error:
        raise wrong(explain(error).detail, index, "metadata") from None


def _metadata(value: dict[str, Any] | None, index: int | None = None) -> bytes | None:
    if value is None:
        return None
    if (flaw := _not_json(value, METADATA_DEPTH_MAX)) is not None:
        raise wrong(flaw, index, "metadata")
    encoded = _to_json(value)
    if len(encoded) > m.METADATA_MAX:
        raise wrong(_LONG, index, "metadata")
    return encoded


def _not_json(value: object, depth: int) -> str | None:
    """Says what keeps a decoded value from being JSON (msgpack can bring bytes, times, NaN, keys of any type), or
    msgpack again, or stored.
    """
    if isinstance(value, dict | list):
        return _not_json_inside(value, depth)
    if isinstance(value, str):
        return None if is_text(value) else TEXT_RULE
    if isinstance(value, float) and not math.isfinite(value):
        return "numbers must be finite"
    if isinstance(value, int) and not _fits(value):
        return "integers must fit in 64 bits"
    if value is not None and not isinstance(value, int | float):
        return f"{type(value).__name__} is not a JSON value"
    return None


def _not_json_inside(value: dict[Any, Any] | list[Any], depth: int) -> str | None:
    if depth == 0:
        return f"nested deeper than {METADATA_DEPTH_MAX}"
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        return "keys must be strings"
    if isinstance(value, dict) and not all(map(is_text, value)):
        return TEXT_RULE
    inner = value.values() if isinstance(value, dict) else value
    return next((flaw for part in inner if (flaw := _not_json(part, depth - 1)) is not None), None)


def _fits(value: int) -> bool:
    """Has msgpack a place for it?"""
    return -(2**63) <= value < 2**64


def _raw(metadata: bytes, msgpack: bool) -> msgspec.Raw:
    """Never fails on what a store gives back: the messages around it may be leased by now."""
    if not msgpack:
        return msgspec.Raw(metadata)
    decoded = _from_json(metadata)
    try:
        return msgspec.Raw(_to_msgpack(decoded))
    except OverflowError:
        return msgspec.Raw(_to_msgpack(_narrow(decoded)))


def _narrow(value: Any) -> Any:
    """Makes floats of integers that msgpack has no place for."""
    if isinstance(value, dict):
        return {key: _narrow(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_narrow(part) for part in value]
    if not isinstance(value, int) or _fits(value):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def message(d: m.Delivery, msgpack: bool) -> wire.Message:
    return wire.Message(
        id=d.id,
        namespace=d.namespace,
        topic=d.topic,
        priority=d.priority,
        payload=d.payload,
        deliver_after=to_time(d.deliver_after_us),
        created_at=to_time(d.created_at_us),
        attempt=d.attempt,
        max_retries=d.max_retries,
        receipt=d.receipt,
        lease_expires_at=to_time(d.lease_expires_at_us),
        lease=d.lease_us / 1e6,
        metadata=None if d.metadata is None else _raw(d.metadata, msgpack),
    )


def settle(item: wire.SettleItem, kind: m.Kind, index: int | None = None) -> m.Settle:
    check_names(item.namespace, (item.topic,), index)
    if kind == "cancel" and item.receipt is None:
        raise wrong("is required where a delivery ends as cancelled", index, "receipt")
    if item.result is not None and kind != "ack":
        raise wrong("only an ack brings a result", index, "result")
    ttl = m.RESULT_TTL_S if item.result_ttl is None else item.result_ttl
    return m.Settle(item.id, item.namespace, item.topic, kind, item.receipt, _error(item.error), item.retry_after, item.result, ttl)


def _error(text: str | None) -> str | None:
    """Cuts it to what is kept; PostgreSQL's text holds no NUL."""
    if text is None:
        return None
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode()[: m.ERROR_MAX].decode(errors="ignore")


def extend(item: wire.ExtendItem, index: int | None = None) -> m.Extend:
    check_names(item.namespace, (item.topic,), index)
    return m.Extend(item.id, item.namespace, item.topic, item.receipt, item.lease)


def dead_item(d: m.DeadLetter, msgpack: bool) -> wire.DeadItem:
    return wire.DeadItem(
        id=d.id,
        namespace=d.namespace,
        topic=d.topic,
        priority=d.priority,
        payload=d.payload,
        attempts=d.attempts,
        created_at=to_time(d.created_at_us),
        died_at=to_time(d.died_at_us),
        error=d.error,
        metadata=None if d.metadata is None else _raw(d.metadata, msgpack),
    )


def status(s: m.MessageStatus, msgpack: bool) -> wire.Status:
    return wire.Status(
        id=s.id,
        namespace=s.namespace,
        topic=s.topic,
        state=s.state,
        priority=s.priority,
        attempts=s.attempts,
        max_retries=s.max_retries,
        payload=s.payload,
        deliver_after=to_time(s.deliver_after_us),
        created_at=to_time(s.created_at_us),
        error=s.error,
        metadata=None if s.metadata is None else _raw(s.metadata, msgpack),
        cancelling=s.cancelling,
        progress=s.progress,
        note=s.note,
    )


def worker_report(worker: wire.Worker) -> m.WorkerReport:
    """Converts what a worker tells. Raises Invalid, TooLarge."""
    if worker.seen_at is not None:
        raise wrong("is for the answer", field="seen_at")
    check_names("-", [worker.name, *worker.topics, *(name for run in worker.running for name in (run.namespace, run.topic))])
    texts = [worker.host, worker.version, *worker.tasks, *worker.counts, *(run.task + (run.note or "") for run in worker.running)]
    if not all(map(is_text, texts)):
        raise wrong(TEXT_RULE)
    encoded = _to_json(worker)
    if len(encoded) > m.REPORT_MAX:
        raise TooLarge(f"a worker's report may have {m.REPORT_MAX} bytes")
    namespaces = {topic.partition("/")[0] for topic in worker.topics}
    progressing = tuple(run.id for run in worker.running if run.progress is not None)
    return m.WorkerReport(m.WorkerKey(worker.name, tuple(sorted(namespaces))), progressing, encoded.decode())


def worker(text: str, seen_us: int, namespaces: frozenset[str] | None) -> wire.Worker:
    """Returns of what it told what is in these namespaces (None: all)."""
    told = _read_worker(text)
    told.seen_at = to_time(seen_us)
    if namespaces is not None:
        if any(topic.partition("/")[0] not in namespaces for topic in told.topics):
            told.tasks = []  # whose they are it does not tell
        told.topics = [topic for topic in told.topics if topic.partition("/")[0] in namespaces]
        told.running = [run for run in told.running if run.namespace in namespaces]
    return told


def new_schedule(item: ScheduleItem, name: str, msgpack: bool) -> s.Schedule:
    """Converts a schedule. Raises Invalid, naming the field."""
    check_names(item.namespace, (item.topic,))
    try:
        s.check(item.cron, item.timezone, item.every)
    except s.BadSchedule as bad:
        raise wrong(str(bad), None, bad.field) from None
    given = _read_metadata(item.metadata, msgpack)
    encoded = _metadata(given)
    metadata = None if encoded is None else encoded.decode()
    if not s.OWN_METADATA.isdisjoint(given or ()):
        raise wrong(f"{' and '.join(sorted(s.OWN_METADATA))} are what each tick adds", None, "metadata")
    if len(s.tagged(metadata, name, m.TIME_MAX_US)) > m.METADATA_MAX:
        raise wrong(f"longer than {m.METADATA_MAX} bytes as JSON, with what each tick adds", None, "metadata")
    return s.Schedule(
        item.namespace, name, item.topic, item.cron, item.timezone, 0 if item.every is None else round(item.every * 1e6), 0, item.catch_up,
        item.payload, metadata, item.priority, item.max_retries, None if item.lease is None else int(max(item.lease, m.LEASE_LEAST_S) * 1000),
        None if item.ttl is None else max(1, int(item.ttl * 1e6)), False, None, None, None,
    )  # fmt: skip


def schedule(known: s.Schedule, msgpack: bool) -> wire.Schedule:
    return wire.Schedule(
        name=known.name,
        namespace=known.namespace,
        topic=known.topic,
        cron=known.cron,
        timezone=known.timezone,
        every=known.every_us / 1e6 if known.every_us else None,
        catch_up=known.catch_up,
        priority=known.priority,
        paused=known.paused,
        next_at=None if known.next_at_us is None else to_time(known.next_at_us),
        last_at=None if known.last_at_us is None else to_time(known.last_at_us),
        payload=known.payload,
        metadata=None if known.metadata is None else _raw(known.metadata.encode(), msgpack),
        ttl=None if known.ttl_us is None else known.ttl_us / 1e6,
        max_retries=known.max_retries,
        lease=None if known.lease_ms is None else known.lease_ms / 1000,
    )


def shard_ready(r: m.Readiness) -> wire.ShardReady:
    postgres: Literal["ok", "unreachable"] = "ok" if r.postgres else "unreachable"
    return wire.ShardReady(shard=r.shard, mode=r.mode, redis=r.redis, postgres=postgres, wal=r.wal)


def topic(t: m.TopicStats) -> wire.Topic:
    return wire.Topic(
        namespace=t.namespace,
        topic=t.topic,
        shard=t.shard,
        ready=t.ready,
        delayed=t.delayed,
        leased=t.leased,
        waiting=t.waiting,
        dead=t.dead,
        counters=t.counters,
    )
