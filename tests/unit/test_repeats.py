"""What is said again at once is no second word."""

from mqueue.repeats import SAME_S, Repeats


def test_what_comes_within_a_second_of_what_counted_is_the_same() -> None:
    times = iter([100.0, 100.0, 100.0 + SAME_S * 0.9, 100.0 + SAME_S, 100.0 + SAME_S * 1.5, 200.0])
    repeats = Repeats(lambda: next(times))
    assert [repeats.heard() for _ in range(6)] == [1, None, None, 2, None, 3]
