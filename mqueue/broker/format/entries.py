"""The payloads of log records are laid out here. This is pure; `wal/` frames them, `tail.py` folds them for a replay.

    enqueue (kind 1)   per message: lengths, flags, record, body, and its idempotency key (or that of the request it
                       begins) where it has one
    outcome (kind 2)   per settle: what it did, as Redis decided it: id, kind, version, attempts, due, origin of its
                       enqueue, flags
    void    (kind 3)   ids of an enqueue record that Redis refused: as if they had never been there

The format is part of the log's version (docs/wal-format.md).
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mqueue.broker.format.record import UNIQUE, UNIQUE_SIZE

_MESSAGE = struct.Struct(">HIB")
_OUTCOME = struct.Struct(">QcIHQHQBHH")
_ID = struct.Struct(">Q")
KEY_SIZE = 16 + 44  # hash, key record (cache/lua/apply.lua)
KEYED, JOINS = 1, 2
IN_PG, CANCEL = 1, 2  # the last byte of an outcome; a cancel reads as an ack where the second flag is not known: the message has ended


class Enqueued(NamedTuple):
    """One message of an enqueue record. `joins`: it came in one request with the message before, and the key of that
    request is its key too.
    """

    record: bytes
    body: bytes
    key_hash: bytes = b""  # empty: none
    key: bytes = b""
    joins: bool = False
    unique: bytes = b""  # its unique key, which its body holds too
    rows: bytes = b""  # what PostgreSQL had under it: not for the log


class Settled(NamedTuple):
    """One outcome. `state`: a acked, c cancelled, x dead, n waits again."""

    id: int
    state: bytes
    version: int
    attempts: int
    due: int
    node: int
    sequence: int
    in_pg: int
    topic: bytes
    error: bytes


def pack_enqueued(messages: Iterable[Enqueued]) -> bytes:
    parts: list[bytes] = []
    for record, body, key_hash, key, joins, *_ in messages:
        flags = (KEYED if key_hash else 0) | (JOINS if joins else 0)
        parts += (_MESSAGE.pack(len(record), len(body), flags), record, body, key_hash, key)
    return b"".join(parts)


def unpack_enqueued(payload: bytes) -> Iterator[Enqueued]:
    at = 0
    while at < len(payload):
        record_size, body_size, flags = _MESSAGE.unpack_from(payload, at)
        at += _MESSAGE.size
        record = payload[at : at + record_size]
        at += record_size
        body = payload[at : at + body_size]
        at += body_size
        key = payload[at : at + KEY_SIZE] if flags & KEYED else b""
        at += len(key)
        unique = body[-UNIQUE_SIZE:] if record[1] & UNIQUE else b""
        yield Enqueued(record, body, key[:16], key[16:], bool(flags & JOINS), unique)


def by_request(messages: Iterable[Enqueued]) -> list[list[Enqueued]]:
    """Groups the messages under the key of one request, and leaves all others alone."""
    requests: list[list[Enqueued]] = []
    for m in messages:
        if m.joins and requests:
            requests[-1].append(m)
        else:
            requests.append([m])
    return requests


SettledFields = tuple[int, bytes, int, int, int, int, int, int, bytes, bytes]


def pack_settled(outcomes: Iterable[SettledFields]) -> bytes:
    """Packs outcomes. Each has the fields of `Settled`, in its order."""
    parts: list[bytes] = []
    for id, state, version, attempts, due, node, sequence, flags, topic, error in outcomes:
        if state == b"c":
            state, flags = b"a", flags | CANCEL
        parts += (_OUTCOME.pack(id, state, version, attempts, due, node, sequence, flags, len(topic), len(error)), topic, error)
    return b"".join(parts)


def unpack_settled(payload: bytes) -> Iterator[Settled]:
    at = 0
    while at < len(payload):
        id, state, *numbers, flags, topic_size, error_size = _OUTCOME.unpack_from(payload, at)
        at += _OUTCOME.size
        topic = payload[at : at + topic_size]
        at += topic_size
        error = payload[at : at + error_size]
        at += error_size
        yield Settled._make((id, b"c" if flags & CANCEL else state, *numbers, flags & IN_PG, topic, error))


def pack_void(ids: Iterable[bytes]) -> bytes:
    return b"".join(ids)


def unpack_void(payload: bytes) -> list[int]:
    return [id for (id,) in _ID.iter_unpack(payload)]
