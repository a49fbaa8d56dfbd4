"""Delays that grow, within their bounds, whatever the count and the chance."""

from hypothesis import given
from hypothesis import strategies as st

from mqueue.backoff import BASE_US, CAP_US, SPREAD, delay_us, pause_s

counts = st.integers(1, 10**6)
chances = st.floats(0, 1, exclude_max=True)


def test_they_double() -> None:
    assert [delay_us(n, 0.0) for n in (1, 2, 3)] == [BASE_US, 2 * BASE_US, 4 * BASE_US]
    assert [pause_s(n, 0.5, 0.5, 30.0) for n in (1, 2, 3)] == [0.375, 0.75, 1.5]


@given(counts, chances)
def test_a_retry_comes_within_the_cap_and_at_most_a_quarter_early(attempts: int, chance: float) -> None:
    full = delay_us(attempts, 0.0)
    assert BASE_US <= full <= CAP_US
    assert full * (1 - SPREAD) - 1 <= delay_us(attempts, chance) <= full
    assert delay_us(attempts, chance) <= delay_us(attempts + 1, chance)


@given(counts, chances, st.floats(0.001, 60), st.floats(1, 1000))
def test_a_pause_is_from_half_to_all_of_what_has_grown(failed: int, chance: float, least: float, times: float) -> None:
    most = least * times
    pause = pause_s(failed, chance, least, most)
    assert least / 2 <= pause <= most
    assert pause_s(failed, 0.0, least, most) <= pause <= 2 * pause_s(failed, 0.0, least, most)
    assert pause <= pause_s(failed + 1, chance, least, most)
    assert pause_s(10**6, 0.0, least, most) == most / 2
