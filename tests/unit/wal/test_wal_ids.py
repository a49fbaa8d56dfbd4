"""Ids and sequence numbers: unique, growing, across clocks that jump and processes that die."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqueue.broker.wal import Identity, IdSource
from mqueue.broker.wal.ids import EPOCH_MS, RESERVE_MS

NOW = EPOCH_MS + 60_000_000_000


class FakeClock:
    def __init__(self, ms: int = NOW) -> None:
        self.ms = ms

    def wall_us(self) -> int:
        return self.ms * 1000

    def monotonic(self) -> float:
        return 0.0


class FakeFloor:
    """What survives a crash: only what was reserved."""

    def __init__(self) -> None:
        self.id_floor_ms = 0
        self.writes = 0

    def reserve_ids(self, until_ms: int) -> None:
        assert until_ms > self.id_floor_ms
        self.id_floor_ms = until_ms
        self.writes += 1


def parts(id: int) -> tuple[int, int, int]:
    return id >> 22, id >> 12 & 1023, id & 4095


def test_an_id_is_time_node_and_count() -> None:
    ids = IdSource(17, FakeFloor(), FakeClock()).take(3)
    assert [parts(i) for i in ids] == [(NOW - EPOCH_MS, 17, n) for n in range(3)]
    assert max(IdSource(1023, FakeFloor(), FakeClock(EPOCH_MS + 2**41 - RESERVE_MS - 1)).take(1)) < 2**63
    with pytest.raises(ValueError):
        IdSource(1024, FakeFloor(), FakeClock())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 9000)),
        st.tuples(st.just("clock"), st.integers(-7_200_000, 7_200_000)),
        st.tuples(st.just("renew"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=30,
)


@given(steps)
def test_ids_only_grow_whatever_clock_and_process_do(script: list[tuple[str, int]]) -> None:
    clock, floor = FakeClock(), FakeFloor()
    source, last = IdSource(5, floor, clock), -1
    for step, n in script:
        match step:
            case "take":
                ids = source.take(n)
                assert len(ids) == n
                assert all(parts(i)[1] == 5 for i in ids)
                for new in ids:
                    assert new > last
                    last = new
                assert last >> 22 < floor.id_floor_ms or last == -1, "never beyond what is durable"
            case "clock":
                clock.ms += n
            case "renew":
                source.renew()
            case "crash":
                source = IdSource(5, floor, clock)


def test_time_before_2024_and_after_2093() -> None:
    assert IdSource(0, FakeFloor(), FakeClock(0)).take(2) == [0, 1]
    with pytest.raises(OverflowError):
        IdSource(0, FakeFloor(), FakeClock(EPOCH_MS + 2**41)).take(1)


def test_no_ids_need_no_disk() -> None:
    floor = FakeFloor()
    assert IdSource(0, floor, FakeClock()).take(0) == []
    assert floor.writes == 0


def test_renewed_in_time_a_take_does_not_write() -> None:
    clock, floor = FakeClock(), FakeFloor()
    source = IdSource(0, floor, clock)
    for _ in range(100):
        source.renew()
        writes = floor.writes
        source.take(1000)
        assert floor.writes == writes
        clock.ms += 3000
    assert floor.writes < 60


def test_across_a_real_restart_with_a_clock_gone_back(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path)
    before = IdSource(1, identity, FakeClock()).take(10_000)
    identity.close()
    after = IdSource(1, Identity.open(tmp_path), FakeClock(NOW - 3_600_000)).take(10_000)
    assert before == sorted(set(before))
    assert after == sorted(set(after))
    assert before[-1] < after[0]
