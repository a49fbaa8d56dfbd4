"""What a settle does past Redis, and which messages of a request are new: the pure half of the cold path."""

import struct

import pytest

from mqueue.broker.cache.calls import SettleArgs
from mqueue.broker.commit.cold import decided, fresh_of
from mqueue.broker.format import record
from mqueue.broker.format.entries import Enqueued
from mqueue.broker.store.cold import Clocks, Leased
from mqueue.errors import KeyReused

CLOCKS = Clocks(due=1_000_000, now=1_020_000)
RECEIPT = (7).to_bytes(4) + (42).to_bytes(8)
OTHER = (7).to_bytes(4) + (43).to_bytes(8)
DELAYS = struct.pack(">2d", 5_000_000.0, 9_000_000.0)


def leased(**more: object) -> Leased:
    fields = {"id": 5, "topic_id": 1, "topic": "n/t", "attempts": 0, "max_retries": 2, "version": 3, "due": 900_000, "node": 1, "sequence": 0}
    return Leased(**(fields | {"receipt": RECEIPT} | more))  # type: ignore[arg-type]


def settle(kind: str, receipt: bytes = RECEIPT, topic: bytes = b"n/t", delays: bytes = DELAYS, error: bytes = b"") -> SettleArgs:
    return SettleArgs((5).to_bytes(8), topic, kind, receipt, error, b"" if kind == "ack" else delays)


@pytest.mark.parametrize(
    ("kind", "attempts", "state", "told", "due", "version"),
    [
        ("ack", 0, b"a", 0, 900_000, 3),
        ("nack", 0, b"n", 1, 6_020_000, 4),
        ("nack", 1, b"n", 2, 10_020_000, 4),
        ("nack", 2, b"x", 3, 900_000, 4),
        ("bury", 0, b"x", 1, 900_000, 4),
        ("release", 0, b"n", 0, 6_020_000, 4),
    ],
)
def test_a_current_receipt_decides(kind: str, attempts: int, state: bytes, told: int, due: int, version: int) -> None:
    outcomes, changes = decided([settle(kind, error=b"why")], {5: leased(attempts=attempts)}, CLOCKS)
    assert [(o.verdict, o.state, o.attempts, o.due, o.version) for o in outcomes] == [(b"o", state, told, due, version)]
    assert [(c.id, c.state, c.attempts, c.due) for c in changes] == [(5, state, told, due)]


def test_released_without_a_delay_it_is_as_if_never_delivered() -> None:
    [outcome], [change] = decided([settle("release", delays=b"")], {5: leased()}, CLOCKS)
    assert (outcome.verdict, change.version, change.attempts, change.due) == (b"o", 3, 0, 900_000)


def test_at_once_is_due_for_everybody() -> None:
    [outcome], _ = decided([settle("nack", delays=struct.pack(">d", 0.0))], {5: leased()}, CLOCKS)
    assert outcome.due == CLOCKS.due


@pytest.mark.parametrize("kind", ["ack", "nack", "bury", "release"])
def test_who_has_no_right_changes_nothing(kind: str) -> None:
    there = {5: leased()}
    assert [o.verdict for o in decided([settle(kind, OTHER)], there, CLOCKS)[0]] == [b"s"]
    assert [o.verdict for o in decided([settle(kind)], {5: leased(receipt=b"")}, CLOCKS)[0]] == [b"s"], "nobody has it"
    assert [o.verdict for o in decided([settle(kind, topic=b"n/other")], there, CLOCKS)[0]] == [b"g"]
    assert [o.verdict for o in decided([settle(kind)], {}, CLOCKS)[0]] == [b"g"]
    assert decided([settle(kind, OTHER), settle(kind, topic=b"x")], there, CLOCKS)[1] == []


def test_without_a_receipt_the_current_lease_is_meant() -> None:
    assert decided([settle("ack", b"")], {5: leased()}, CLOCKS)[0][0].verdict == b"o"


@pytest.mark.parametrize(("first", "then"), [("ack", b"g"), ("bury", b"g"), ("nack", b"s"), ("release", b"s")])
def test_of_two_in_one_batch_the_first_decides(first: str, then: bytes) -> None:
    outcomes, changes = decided([settle(first), settle("ack")], {5: leased()}, CLOCKS)
    assert [o.verdict for o in outcomes] == [b"o", then]
    assert len(changes) == 1


# -- keys --------------------------------------------------------------------------------------------------------------


def enqueued(id: int, key: bytes = b"", body_hash: bytes = bytes(16), kind: bytes = b"u", joins: bool = False) -> Enqueued:
    data = record.new(
        priority=0, due=1, id=id, expires=0, max_retries=0, lease_ms=1000, node=1, sequence=0, size=16, topic=b"n/t"
    )  # fmt: skip
    own = record.IDEMPOTENCY.pack(id, body_hash, 1, 0, 99, 0, kind) if key else b""
    return Enqueued(data, record.body(1, b"x", None, None), key, own, joins)


def test_messages_without_keys_are_all_new() -> None:
    told, fresh = fresh_of([enqueued(1), enqueued(2)], {})
    assert (told, len(fresh.rows), fresh.keys) == ([1, 2], 2, [])


def test_of_two_under_one_key_the_first_counts() -> None:
    told, fresh = fresh_of([enqueued(1, b"k"), enqueued(2, b"k"), enqueued(3)], {})
    assert told == [1, 1, 3]
    assert [int.from_bytes(data[record.ID]) for data, _ in fresh.rows] == [1, 3]
    assert [(key.key_hash, key.id, key.runs) for key in fresh.keys] == [(b"k", 1, None)]


def test_one_key_for_two_bodies_is_refused() -> None:
    with pytest.raises(KeyReused) as refused:
        fresh_of([enqueued(1, b"k"), enqueued(2, b"k", body_hash=b"\1" * 16)], {})
    assert refused.value.item == 1


def test_the_key_of_a_request_stands_for_all_its_ids() -> None:
    told, fresh = fresh_of([enqueued(1, b"r", kind=b"r"), enqueued(2, joins=True), enqueued(9, joins=True)], {})
    assert told == [1, 2, 9]
    [key] = fresh.keys
    assert key.runs is not None
    assert record.unpack_runs(key.runs) == [1, 2, 9]


def test_who_waits_under_a_unique_key_is_the_message() -> None:
    waiting = {b"x" * 16: 77}
    messages = [
        enqueued(1)._replace(unique=b"x" * 16),
        enqueued(2)._replace(unique=b"y" * 16),
        enqueued(3)._replace(unique=b"y" * 16),
        enqueued(4),
    ]
    told, fresh = fresh_of(messages, waiting)
    assert told == [77, 2, 2, 4]
    assert [int.from_bytes(data[record.ID]) for data, _ in fresh.rows] == [2, 4]
    assert fresh_of([enqueued(5)._replace(unique=b"y" * 16)], waiting)[0] == [2], "the next request of the batch finds it"
