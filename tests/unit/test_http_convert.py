"""The conversions, on their own: exact times, and words for what is wrong."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
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
