"""The circuit breaker, on a clock that the test moves."""

from mqueue.broker.store.circuit import FAILURES, OPEN_S, TRIAL_S, Circuit


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return int(self.now * 1e6)


def opened() -> tuple[Circuit, Hand]:
    clock = Hand()
    circuit = Circuit(clock)
    for _ in range(FAILURES):
        assert circuit.allows()
        circuit.failed()
    return circuit, clock


def test_failures_in_a_row_open_it() -> None:
    circuit, clock = opened()
    assert circuit.is_open
    assert not circuit.allows()
    clock.now += OPEN_S / 2
    assert not circuit.allows()


def test_a_success_between_counts_them_anew() -> None:
    circuit = Circuit(Hand())
    for _ in range(3):
        for _ in range(FAILURES - 1):
            circuit.failed()
        circuit.succeeded()
    assert circuit.allows()


def test_half_open_lets_one_call_through() -> None:
    circuit, clock = opened()
    clock.now += OPEN_S
    assert [circuit.allows() for _ in range(3)] == [True, False, False]
    circuit.succeeded()
    assert not circuit.is_open
    assert all(circuit.allows() for _ in range(3))


def test_a_trial_that_fails_opens_it_again() -> None:
    circuit, clock = opened()
    clock.now += OPEN_S
    assert circuit.allows()
    circuit.failed()
    assert not circuit.allows()
    clock.now += OPEN_S
    assert circuit.allows()


def test_a_trial_that_never_ends_does_not_close_it_for_good() -> None:
    circuit, clock = opened()
    clock.now += OPEN_S
    assert circuit.allows()
    clock.now += TRIAL_S
    assert circuit.allows()
