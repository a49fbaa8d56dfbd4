"""The short form of `fallen.py`."""

from tests.campaigns import fallen


def test_what_a_worker_leaves_is_elsewhere_soon_and_a_sleeper_is_refused() -> None:
    found = fallen.run(rounds=1, ways=("asleep and full", "out of memory"), lease=1.0)
    said = "\n".join([*fallen.report(found), *found.untold, *map(str, found.ran_again)])
    assert found.good(late_s=4.0), said  # a second where nothing else keeps the machine busy
    # that each of its own is told is in good(); one slot or another may have held a short job
    assert found.falls[0].refused + found.falls[0].cancelled >= fallen.PREY_SLOTS / 2, said
    assert sum(len(fall.settled) for fall in found.falls) > 10, "nothing was settled"
