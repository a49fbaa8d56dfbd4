"""A message has one form as bytes, the same in the WAL, in Redis and on its way into PostgreSQL.

A *record* is what changes; the scripts (`cache/lua/lib/unit.lua`) know its offsets. Big-endian, so that its middle is
the key as a sorted string: priority, rank, deliver_after, id. A *body* is what never changes, laid out as fields of a
binary COPY row, so that the flusher copies it as it is: created_at, payload, metadata, idempotency key; and its unique
key, where the record's flags say that it has one.

    record: state, flags, attempts, max_retries, version, flushed version, priority + 2^31, rank, due µs, id,
            expires µs (0 never), lease ms, origin node, origin sequence, receipt (epoch, number), lease end µs,
            buffer bytes, topic
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from mqueue.lifecycle import State
from mqueue.message import TopicName

RECORD = Struct(">cBHHIIIIQQQIHQ12sQI")
SIZE = RECORD.size  # 84; the topic follows
KEY = slice(14, 38)
ID = slice(30, 38)
VERSION = slice(6, 10)
KEY_PARTS = Struct(">IIQQ")
ENDED = Struct(">c5xII16xQ")  # of a record: state, version, flushed version, id
BIAS = 1 << 31
IN_PG, CANCELLING, UNIQUE = 1, 2, 4  # flags
OVERHEAD = 300  # bytes Redis needs for a message beyond its record and body (measured: tests/campaigns/memory.py)
NO_RECEIPT = bytes(12)
FIRST = b""  # frontier of a topic Redis knows nothing of
LAST = b"\xff" * 24  # frontier of a topic that is wholly in Redis

# id, body hash, origin node, origin sequence, expiry µs, flushed, kind: u of a message, r of a request;
# w a unique key (no body hash, no expiry; other ids may follow, as runs)
IDEMPOTENCY = Struct(">Q16sHQQBc")
UNIQUE_SIZE = 16  # bytes: a hash of topic and key
RUN = Struct(">QI")
ID8 = Struct(">Q")
LENGTH = Struct(">i")
SIZE4 = Struct(">I")
NULL = LENGTH.pack(-1)
CREATED = Struct(">iq")
BODY_HEAD = Struct(">iqi")  # created_at, and the length of the payload that follows

# One binary COPY row of `message`: these, then expires_at, error, then the body's fields.
COPY_HEAD = Struct(">hiqiiiiiiiqiiiiiiiiiiiq")
COPY_COLUMNS = 18
INT8 = Struct(">iq")


class Record(NamedTuple):
    state: bytes
    flags: int
    attempts: int
    max_retries: int
    version: int
    flushed: int
    biased_priority: int
    rank: int
    due: int
    id: int
    expires: int
    lease_ms: int
    node: int
    sequence: int
    receipt: bytes
    until: int
    size: int
    topic: str

    @property
    def priority(self) -> int:
        return self.biased_priority - BIAS

    @property
    def topic_name(self) -> TopicName:
        namespace, _, topic = self.topic.partition("/")
        return TopicName(namespace, topic)


def buffered(body: int, topic: int) -> int:
    """Returns the bytes a message takes in the write-behind buffer, by the lengths of its body and topic."""
    return body + SIZE + topic + OVERHEAD


def buffered_of(data: bytes) -> int:
    """Returns the same, as a record tells it."""
    return SIZE4.unpack_from(data, 80)[0]  # type: ignore[no-any-return]


@lru_cache(1024)  # few topics, many messages
def _text(name: bytes) -> str:
    return name.decode()


def topic(data: bytes) -> str:
    """Returns the topic of a record, as Redis and the log name it: `namespace/topic`."""
    return _text(data[SIZE:])


def unpack(data: bytes) -> Record:
    return Record._make((*RECORD.unpack_from(data), topic(data)))


def pack(r: Record) -> bytes:
    return RECORD.pack(*r[:17]) + r.topic.encode()


def new(
    *,
    priority: int,
    due: int,
    id: int,
    expires: int,
    max_retries: int,
    lease_ms: int,
    node: int,
    sequence: int,
    size: int,
    topic: bytes,
    unique: bool = False,
) -> bytes:
    """Makes the record of a message about to be enqueued. `size`: length of its body. `unique`: it has a key of that
    kind.
    """
    return (
        RECORD.pack(
            State.UNPLACED.value,
            UNIQUE if unique else 0, 0, max_retries, 1, 0, priority + BIAS, 0, due, id, expires, lease_ms, node, sequence, NO_RECEIPT, 0,
            buffered(size, len(topic)),
        )
        + topic
    )  # fmt: skip


def from_row(
    *, id: int, topic: str, priority: int, rank: int, due: int, attempts: int, max_retries: int, version: int, lease_ms: int,
    node: int, sequence: int, expires: int | None, size: int, unique: bool = False,
) -> bytes:  # fmt: skip
    """Makes the record of a row that PostgreSQL has: clean, `in_pg`."""
    name = topic.encode()
    return (
        RECORD.pack(
            State.UNPLACED.value,
            IN_PG | (UNIQUE if unique else 0), attempts, max_retries, version, version, priority + BIAS, rank, due, id, expires or 0,
            lease_ms, node, sequence, NO_RECEIPT, 0, buffered(size, len(name)),
        )
        + name
    )  # fmt: skip


def leased(data: bytes, receipt: bytes, until: int, cancelling: bool = False) -> bytes:
    """Returns this record under a lease."""
    flags = data[1] | (CANCELLING if cancelling else 0)
    return State.LEASED.value + bytes((flags,)) + data[2:60] + receipt + ID8.pack(until) + data[80:]


def key(priority: int, rank: int, due: int, id: int) -> bytes:
    return KEY_PARTS.pack(priority + BIAS, rank, due, id)


def key_parts(key: bytes) -> tuple[int, int, int, int]:
    """Returns priority, rank, due and id."""
    biased, rank, due, id = KEY_PARTS.unpack(key)
    return biased - BIAS, rank, due, id


def body(created_us: int, payload: bytes, metadata: bytes | None, idempotency_key: str | None, unique_key: bytes | None = None) -> bytes:
    """Lays out the fields that never change. The unique key stays the last of them, whatever field is added:
    `entries.unpack_enqueued`, and `wait_again` in `cache/lua/lib/settle.lua`, take it from the end. A body may lack it,
    so `copy_row` puts a null in its place.
    """
    parts = [CREATED.pack(8, created_us), LENGTH.pack(len(payload)), payload]
    if metadata is None:
        parts.append(NULL)
    else:
        parts += (LENGTH.pack(len(metadata)), metadata)
    if idempotency_key is None:
        parts.append(NULL)
    else:
        encoded = idempotency_key.encode()
        parts += (LENGTH.pack(len(encoded)), encoded)
    if unique_key is not None:
        parts += (LENGTH.pack(UNIQUE_SIZE), unique_key)
    return b"".join(parts)


class Body(NamedTuple):
    created_us: int
    payload: bytes
    metadata: bytes | None
    idempotency_key: str | None


def content(data: bytes) -> tuple[int, bytes, bytes | None, int]:
    """Returns created_us, payload and metadata of a body, and where its idempotency key begins."""
    _, created, n = BODY_HEAD.unpack_from(data)
    at = 16 + n
    (size,) = LENGTH.unpack_from(data, at)
    end = at + 4 + max(0, size)
    return created, data[16:at], data[at + 4 : end] if size >= 0 else None, end


def open_body(data: bytes) -> Body:
    created, payload, metadata, at = content(data)
    (n,) = LENGTH.unpack_from(data, at)
    return Body(created, payload, metadata, data[at + 4 : at + 4 + n].decode() if n >= 0 else None)


def copy_row(r: Record, topic_id: int, error: bytes | None, body: bytes) -> bytes:
    """Makes one row of a binary COPY into `message` or its staging table (columns: store/sql/copy_message.sql)."""
    return b"".join((
        COPY_HEAD.pack(
            COPY_COLUMNS, 8, r.id, 4, topic_id, 4, r.biased_priority - BIAS, 4, r.rank, 8, r.due, 4, r.attempts, 4, r.max_retries,
            4, r.version, 4, r.lease_ms, 4, r.node, 8, r.sequence,
        ),
        INT8.pack(8, r.expires) if r.expires else NULL,
        LENGTH.pack(len(error)) + error if error is not None else NULL,
        body,
        b"" if r.flags & UNIQUE else NULL,
    ))  # fmt: skip


def pack_runs(ids: Sequence[int]) -> bytes:
    """Packs ids as runs (first, count): those of one request mostly follow each other."""
    runs: list[list[int]] = []
    for id in ids:
        if runs and id == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([id, 1])
    return b"".join(RUN.pack(*run) for run in runs)


def is_flushed(key: bytes) -> bool:
    """Has PostgreSQL this key record?"""
    return bool(IDEMPOTENCY.unpack_from(key)[5])


def unique_holders(key: bytes) -> list[bytes]:
    """Returns the ids that the key record of a unique key names."""
    return [key[:8], *(key[at : at + 8] for at in range(IDEMPOTENCY.size, len(key), RUN.size))]


def unpack_runs(data: bytes) -> list[int]:
    return [id for first, count in RUN.iter_unpack(data) for id in range(first, first + count)]
