"""Where the clock of a new epoch begins: as far as its first tick would go on."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqueue.broker.daemons.epoch import clock_of_next


@pytest.mark.parametrize(
    ("row_us", "known_us", "own_wall_us", "wall_us", "begins"),
    [
        (100, 90, 70, 80, (100, 100)),  # no wall clock is past it
        (100, 110, 70, 300, (110, 110)),  # one that is ahead alone does not count
        (100, 90, 12_000, 13_000, (100, 12_000)),  # both are past it: the lesser of them
        (0, 0, 13_000, 12_000, (12_000, 13_000)),  # a shard's first one
    ],
)
def test_where_it_begins(row_us: int, known_us: int, own_wall_us: int, wall_us: int, begins: tuple[int, int]) -> None:
    shard: Any = SimpleNamespace(now_us=lambda: known_us, clock=SimpleNamespace(wall_us=lambda: own_wall_us))
    row = cast(Any, SimpleNamespace(clock_us=row_us, wall_us=wall_us))
    assert clock_of_next(shard, row) == begins
