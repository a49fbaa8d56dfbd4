"""A fetch that waits for topics to be opened hears of its own alone: many wait, and the leader names many at once."""

from mqueue.broker.engine.fetch_waiters import Waiters


def test_it_waits_until_the_last_of_its_topics_is_open() -> None:
    waiters = Waiters()
    with waiters.opening(["n/a", "n/b", "n/c"]) as opening:
        opening.wait_for(["n/a", "n/b"])
        waiters.opened(["n/a", "n/x"])
        assert not opening.event.is_set()
        waiters.opened(["n/b"])
        assert opening.event.is_set()


def test_what_was_told_while_it_looked_counts() -> None:
    waiters = Waiters()
    with waiters.opening(["n/a", "n/b"]) as opening:
        opening.look()
        waiters.opened(["n/a"])
        opening.wait_for(["n/a"])
        assert opening.event.is_set()
        opening.look()
        opening.wait_for(["n/a"])
        assert not opening.event.is_set()


def test_it_keeps_no_name_that_is_not_its_own() -> None:
    waiters = Waiters()
    with waiters.opening(["n/a"]) as opening:
        waiters.opened(f"n/{number}" for number in range(10_000))
        assert not opening._told
