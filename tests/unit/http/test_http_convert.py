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


ITEM = st.fixed_dictionaries(
    {"topic": st.sampled_from(["t", "u"])}, optional={"metadata": st.dictionaries(st.text(), st.text() | st.lists(st.lists(st.text())))}
)


@given(st.lists(ITEM, min_size=1, max_size=30), st.sampled_from([None, 1]), st.sampled_from(["", " ", "[1]", '"{"', ",1"]))
def test_items_found_one_by_one_are_those_of_the_array(items: list[dict[str, Any]], indent: int | None, more: str) -> None:
    """A large body that is dense with strings is decoded item by item; so that it is tried on small ones, too, the
    steps are called directly.
    """
    body = (json.dumps(items, indent=indent)[:-1] + (("," + more.removeprefix(",")) if more.strip() else more) + "]").encode()

    def decoded(at_once: bool) -> Any:
        try:
            found = decode.ENQUEUE.decode(body, False) if at_once else decode.at_once(decode.ENQUEUE._read_dense(body))
        except decode.MQueueError as error:
            return error.status, error.item
        return [convert.new_message(item, index, False) for index, item in enumerate(found)]

    def told(at_once: bool) -> Any:
        try:
            return decoded(at_once)
        except decode.MQueueError as error:
            return error.detail

    assert told(False) == told(True)


@given(st.lists(ITEM, min_size=1, max_size=30))
def test_packed_items_are_those_of_the_array(items: list[dict[str, Any]]) -> None:
    body = msgspec.msgpack.encode(items)
    settles = msgspec.msgpack.encode([{"id": 1} | {"topic": item["topic"]} for item in items])
    assert decode.at_once(decode.ENQUEUE.read(body, True)) == decode.ENQUEUE.decode(body, True)
    assert decode.at_once(decode.SETTLE.read(settles, True)) == decode.SETTLE.decode(settles, True)


def test_an_item_that_nobody_sent_is_not_told() -> None:
    """A name may look like the place of an error."""
    try:
        decode.POLL.decode(b'{"a - at `$[' + b"9" * 900 + b']":1}', False)
    except decode.MQueueError as error:
        assert error.item is None
