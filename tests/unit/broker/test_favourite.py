"""Which broker should lead which shard, and when a leader hands over."""

from collections import Counter

import pytest

from mqueue.broker.daemons.favourite import SETTLED_S, Favour, favourite
from mqueue.broker.store.seats import CLOCK_OFF_S, BrokerRow


def broker(node: int, *, silent_s: float = 0.1, reaches: bool = True, clock_off_s: float = 0.0) -> BrokerRow:
    return BrokerRow(node, 0, 0, 0, silent_s, reaches, 0.0, clock_off_s=clock_off_s)


@pytest.mark.parametrize(("shards", "brokers"), [(4, 3), (1, 3), (16, 5), (3, 3), (5, 1)])
def test_the_leaders_are_spread(shards: int, brokers: int) -> None:
    rows = [broker(7 * n) for n in range(1, brokers + 1)]
    led = Counter(favourite(rows, shard) for shard in range(shards))
    counts = [led[row.node] for row in rows]
    assert sum(counts) == shards
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    "unable",
    [broker(1, silent_s=60.0), broker(1, reaches=False), broker(1, clock_off_s=-CLOCK_OFF_S - 1), broker(1, clock_off_s=CLOCK_OFF_S + 1)],
    ids=["silent", "without Redis", "behind", "ahead"],
)
def test_who_cannot_lead_well_is_nobodys_favourite(unable: BrokerRow) -> None:
    assert {favourite([unable, broker(2)], shard) for shard in range(4)} == {2}
    assert favourite([unable], 0) is None, "then whoever leads goes on"


def test_a_leader_hands_over_when_another_has_long_been_the_favourite() -> None:
    favour = Favour(1, 0.0)
    assert not favour.is_lost(2, 5.0)
    assert not favour.is_lost(2, 5.0 + SETTLED_S - 0.1)
    assert favour.is_lost(2, 5.0 + SETTLED_S)


@pytest.mark.parametrize("between", [1, None, 3], ids=["itself", "nobody", "a third"])
def test_one_that_comes_and_goes_gets_nothing(between: int | None) -> None:
    favour = Favour(1, 0.0)
    for began in range(0, 100, 10):
        assert not favour.is_lost(2, float(began))
        assert not favour.is_lost(2, began + SETTLED_S - 2)
        assert not favour.is_lost(between, began + SETTLED_S - 1)
