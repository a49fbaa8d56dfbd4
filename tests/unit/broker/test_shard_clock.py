"""A broker's bounds of the shard clock: what lies between them, and when it must ask before it stamps."""

from mqueue.broker.shard_clock import DOUBT_S, FRESH_S, ShardClock

SECOND = 1_000_000
OFFSET = 1_700_000_000 * SECOND  # of the shard clock to the monotonic one
FAR = 2 * OFFSET  # T is not in reach


class Clocks:
    """A shard's, and the monotonic one of a broker that asks it: `took` seconds there and as many back."""

    def __init__(self) -> None:
        self.now = 100.0
        self.offset = OFFSET
        self.known = ShardClock(lambda: self.now)

    @property
    def shard_us(self) -> int:
        return self.offset + round(self.now * 1e6)

    def ask(self, there: float = 0.001, back: float = 0.001, frontier: int = FAR) -> None:
        asked_at = self.now
        self.now += there
        clock = self.shard_us
        self.now += back
        self.known.saw(min(clock, frontier - 1), clock, asked_at, frontier)


def test_the_clock_lies_between_the_bounds_and_the_quickest_answers_narrow_them() -> None:
    clocks = Clocks()
    for there, back in ((0.3, 0.2), (0.01, 0.2), (0.3, 0.01)):
        clocks.ask(there, back)
        clocks.now += 0.5
        assert clocks.known.least_us() - 2 <= clocks.shard_us <= clocks.known.most_us() + 2
    assert clocks.known.most_us() - clocks.known.least_us() < 0.021 * SECOND


def test_a_stamp_is_not_behind_the_clock_however_late_the_answer_was() -> None:
    clocks = Clocks()
    clocks.ask(there=0.2, back=0.1)
    for _ in range(5):
        clocks.now += FRESH_S / 10
        stamp = clocks.known.at_once()
        assert stamp is not None
        assert stamp >= clocks.shard_us - 2


def test_what_cannot_be_told_is_asked() -> None:
    clocks = Clocks()
    assert clocks.known.at_once() is None, "no answer yet"
    clocks.ask()
    assert clocks.known.at_once() is not None
    clocks.now += FRESH_S + 0.1
    assert clocks.known.at_once() is None, "the answer is old"
    clocks.ask(frontier=clocks.shard_us + SECOND)
    assert clocks.known.at_once() is not None
    clocks.now += 1.1
    assert clocks.known.at_once() is None, "T may have been reached"
    clocks.ask(there=0.4, back=0.4)
    clocks.known.begin_epoch()
    clocks.ask(there=0.4, back=0.4)
    clocks.now += DOUBT_S
    clocks.ask()
    assert clocks.known.at_once() is not None


def test_after_a_jump_and_in_a_new_epoch_nothing_is_trusted_for_a_while() -> None:
    for jump in (2 * SECOND, -2 * SECOND):
        clocks = Clocks()
        clocks.ask()
        clocks.offset += jump
        clocks.ask()
        assert clocks.known.at_once() is None
        clocks.now += DOUBT_S + 0.1
        clocks.ask()
        stamp = clocks.known.at_once()
        assert stamp is not None
        assert stamp >= clocks.shard_us - 2
    clocks.known.begin_epoch()
    clocks.ask()
    assert clocks.known.at_once() is None
