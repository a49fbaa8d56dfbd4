"""A time that no broker takes is refused where it is given, before anything is sent."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mqueue import MQueue

EAST = timezone(timedelta(hours=14))


@pytest.mark.parametrize(
    "at",
    [
        datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
        datetime(2300, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=EAST),  # no time at all in UTC
        datetime(1970, 1, 1, 1, tzinfo=EAST),
    ],
)
def test_a_time_out_of_range_is_refused_where_it_stands(at: datetime) -> None:
    app = MQueue("http://127.0.0.1:9", "none")
    task = app.task(topic="t", name="t")(lambda: None)
    with pytest.raises(ValueError, match=r"at=.* from 1970 to 2220"):
        task.options(at=at)


def test_the_ends_of_the_range_are_taken() -> None:
    task = MQueue("http://127.0.0.1:9", "none").task(topic="t", name="t")(lambda: None)
    for at in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2220, 1, 1, tzinfo=UTC)):
        assert task.options(at=at).message().deliver_after == at
