"""Bytes of a record, and how the end of a log is judged."""

import random
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.wal.frame import PAYLOAD_MAX, SEQUENCE_MAX, End, Scan, decode, encode

SEED = 0x1234ABCD
records = st.builds(
    LogRecord, st.integers(0, SEQUENCE_MAX), st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=200)
)  # fmt: skip


def scan(data: bytes, **options: int) -> tuple[list[LogRecord], Scan]:
    s = Scan(data, seed=SEED, **options)
    return [frame.record for frame in s], s


@given(st.lists(records), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(written: list[LogRecord], seed: int) -> None:
    written.sort(key=lambda r: r.sequence)
    data = b"".join(encode(r, seed) for r in written)
    s = Scan(data, seed=seed)
    frames = list(s)
    assert [f.record for f in frames] == written
    assert [f.end for f in frames] == list(accumulate(len(encode(r)) for r in written))
    assert (s.end, s.offset) == (End.CLEAN, len(data))


@given(records, st.data())
def test_another_seed_does_not_read(record: LogRecord, data: st.DataObject) -> None:
    other = data.draw(st.integers(0, 2**32 - 1).filter(lambda x: x != SEED))
    assert decode(encode(record, SEED), 0, other) is None


@given(st.binary(max_size=300))
def test_a_client_cannot_write_a_record_inside_its_payload(payload: bytes) -> None:
    """What a client sends is in the log as it is: bytes made to look like a record must not turn a torn one into
    corruption.
    """
    inner = encode(LogRecord(2**62, 1, 1, payload))  # the client does not know the seed
    torn = encode(LogRecord(5, 1, 1, inner + b"rest"), SEED)[:-1]
    _, s = scan(torn)
    assert s.end is End.TORN


def test_bounds() -> None:
    encode(LogRecord(0, 0, 0, bytes(PAYLOAD_MAX)))
    for bad in (
        LogRecord(0, 0, 0, bytes(PAYLOAD_MAX + 1)),
        LogRecord(SEQUENCE_MAX + 1, 0, 0, b""),
        LogRecord(-1, 0, 0, b""),
        LogRecord(0, 2**32, 0, b""),
        LogRecord(0, 0, 256, b""),
    ):
        with pytest.raises(ValueError):
            encode(bad)


def test_zeros_are_no_record() -> None:
    good = encode(LogRecord(7, 1, 1, b"x"), SEED)
    found, s = scan(good + bytes(100_000))
    assert (len(found), s.end, s.offset) == (1, End.TORN, len(good))


def test_good_after_bad_is_corruption_wherever_it_stands() -> None:
    first, bad, good = (encode(LogRecord(n, 1, 1, bytes([n]) * 50), SEED) for n in (7, 8, 9))
    for gap in range(200):
        garbage = random.Random(gap).randbytes(gap)
        found, s = scan(first + bad[:20] + garbage + good)
        assert (len(found), s.end, s.offset) == (1, End.CORRUPT, len(first)), gap


def test_a_record_of_a_lower_sequence_after_the_bad_one_is_no_proof() -> None:
    first, old = encode(LogRecord(7, 1, 1, b"x"), SEED), encode(LogRecord(6, 1, 1, b"old"), SEED)
    assert scan(first + b"torn" + old)[1].end is End.TORN


def test_a_sequence_that_goes_back_is_corruption() -> None:
    found, s = scan(encode(LogRecord(7, 1, 1, b"x"), SEED) + encode(LogRecord(6, 1, 1, b"y"), SEED))
    assert (len(found), s.end) == (1, End.CORRUPT)
    assert scan(encode(LogRecord(7, 1, 1, b"x"), SEED), least=8)[1].end is End.CORRUPT
