"""The short form of `fallen.py`."""

from tests.campaigns import fallen

TRIES = 3  # on a busy machine a fall may show little: the sleeper had not got its jobs yet


def test_what_a_worker_leaves_is_elsewhere_soon_and_a_sleeper_is_refused() -> None:
    for _ in range(TRIES):
        found = fallen.run(rounds=1, ways=("asleep and full", "out of memory"), lease=1.0)
        # that each of its own is told is in good(); one slot or another may have held a short job
        told = found.falls[0].refused + found.falls[0].cancelled
        if told >= fallen.PREY_SLOTS / 2 and not found.showed_nothing():
            break
    said = "\n".join([*fallen.report(found), *found.untold, *map(str, found.ran_again)])
    assert found.good(late_s=4.0), said  # a second where nothing else keeps the machine busy
    assert told >= fallen.PREY_SLOTS / 2, said
    assert sum(len(fall.settled) for fall in found.falls) > 10, "nothing was settled"
