"""Rows of `message` become the records and bodies that Redis and the log know."""

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

from mqueue.broker.format import record

Row = tuple[bytes, bytes]  # record, body
FLUSHED = Struct(">QQ")  # epoch, flush number

# A statement that reads messages for Redis selects the columns that `message_row` names, in that order; most select the
# name of the topic too, right after the id (`sql/arrivals.sql`), and some select columns of their own behind them all.
COLUMNS = 16  # without the topic
PAYLOAD = 12  # where the payload is; null where it did not fit the page


class Key(NamedTuple):
    """An idempotency key; `expires`: µs; `runs`: all ids of its request, where it is the request's."""

    key_hash: bytes
    body_hash: bytes
    id: int
    expires: int
    runs: bytes | None = None


def message_row(topic: str, row: Sequence[Any]) -> Row:
    """Makes a record and its body. `row`: as `refill_page` has it, without the topic."""
    (
        id,
        priority,
        rank,
        due,
        attempts,
        max_retries,
        version,
        lease_ms,
        node,
        sequence,
        expires,
        created,
        payload,
        metadata,
        key,
        unique_key,
    ) = row[:COLUMNS]
    body = record.body(created, payload, None if metadata is None else metadata.encode(), key, unique_key)
    return (
        record.from_row(
            id=id, topic=topic, priority=priority, rank=rank, due=due, attempts=attempts, max_retries=max_retries, version=version,
            lease_ms=lease_ms, node=node, sequence=sequence, expires=expires, size=len(body), unique=unique_key is not None,
        ),
        body,
    )  # fmt: skip


def named_row(row: Sequence[Any]) -> Row:
    """Makes a record and its body. `row`: as `arrivals` has it, with the topic."""
    return message_row(row[1], (row[0], *row[2:]))


def behind(row: Sequence[Any]) -> Sequence[Any]:
    """Returns what a statement selects behind the columns of the message and its topic."""
    return row[COLUMNS + 1 :]


def row_to_cancel(id: int, row: Sequence[Any]) -> tuple[str, bytes]:
    """Returns the topic, and what `cache/lua/apply.lua` takes of the answer of that statement. No topic: there is no
    such row.
    """
    epoch, flushed, topic, priority, rank, due, attempts, max_retries, version, lease_ms, node, sequence, expires = row
    seen = FLUSHED.pack(epoch, flushed)
    if topic is None:
        return "", seen
    data = record.from_row(
        id=id, topic=topic, priority=priority, rank=rank, due=due, attempts=attempts, max_retries=max_retries, version=version,
        lease_ms=lease_ms, node=node, sequence=sequence, expires=expires, size=0,
    )  # fmt: skip
    return topic, seen + data


def unique_rows(rows: Sequence[Sequence[Any]]) -> dict[bytes, bytes]:
    """Returns what `cache/lua/apply.lua` takes of that statement's answer, by unique key; `b""`: of keys that are not
    there.
    """
    seen = FLUSHED.pack(rows[0][0], rows[0][1])
    found: dict[bytes, bytes] = {b"": seen}
    for _, _, key, id, expires in rows:
        if key is not None:
            found[key] = found.get(key, seen) + FLUSHED.pack(id, expires)
    return found


def leased_row(row: Sequence[Any], epoch: int, number: int, until: int, cancelling: bool = False) -> Row:
    """Makes a leased record and its body. `row`: as `arrivals` has it, with the topic."""
    data, body = named_row(row)
    return record.leased(data, epoch.to_bytes(4) + number.to_bytes(8), until, cancelling), body
