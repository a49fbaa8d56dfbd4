"""The conversions, on their own: exact times, and words for what is wrong."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from mqueue import message as m
from mqueue.broker.http import convert, decode


@given(st.integers(min_value=0, max_value=m.TIME_MAX_US))
def test_times_are_exact(us: int) -> None:
    assert convert.to_us(convert.to_time(us)) == us


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2220, 1, 1)), st.integers(-1439, 1439))
def test_zones_do_not_matter(time: datetime, minutes: int) -> None:
    there = time.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert convert.to_us(there) == convert.to_us(there.astimezone(UTC))


@given(st.binary(max_size=200))
def test_any_body_is_decoded_or_explained(body: bytes) -> None:
    for msgpack in (False, True):
        for kind in (decode.ENQUEUE, decode.SETTLE, decode.POLL):
            try:
                kind.decode(body, msgpack)
            except decode.MQueueError as error:
                assert error.status == 400


@given(st.binary(max_size=100))
def test_any_query_is_parsed_or_explained(raw: bytes) -> None:
    try:
        decode.query(decode.FetchQuery, raw)
    except decode.MQueueError as error:
        assert error.status == 400


@given(st.lists(st.sampled_from([b'"', b"\\", b"//", b"\n", b"a", b"/"]), max_size=12))
def test_comments_end_with_their_line_and_strings_stay(parts: list[bytes]) -> None:
    line = b"".join(parts)
    stripped = decode._without_comments(b'"x//y" ' + line)
    assert stripped.startswith(b'"x//y" ')
    assert decode._without_comments(stripped) == stripped


@given(
    st.recursive(
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@example([10**30, -(2**63) - 1, 2**64, 2**64 - 1, -(2**63), 10**400, -(10**400)])
def test_any_metadata_leaves_in_msgpack(value: Any) -> None:
    """PostgreSQL's jsonb writes 1e30 as an integer of 31 digits."""
    read = msgspec.msgpack.decode(msgspec.msgpack.encode([convert._raw(json.dumps({"m": value}).encode(), msgpack=True)]))[0]["m"]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        assert isinstance(read, float)


def test_numbers_too_large_for_msgpack_become_floats() -> None:
    metadata = b'{"a":[1000000000000000000000000000000,{"b":18446744073709551615}]}'
    assert msgspec.msgpack.decode(convert._raw(metadata, msgpack=True)) == {"a": [1e30, {"b": 2**64 - 1}]}
    assert bytes(convert._raw(metadata, msgpack=False)) == metadata
