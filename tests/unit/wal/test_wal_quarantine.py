"""`mqueue wal quarantine`: what still reads goes into a new log; whatever moment a crash picks, one of the two
stands.
"""

import random
import shutil
from pathlib import Path

import pytest
from test_wal_crash import FRAME, WHO, PowerLoss, recovered, written
from test_wal_survey import contents, directory, run  # noqa: F401

from mqueue.broker.wal import Identity, ShardLog, WalCorrupt
from mqueue.broker.wal.disk import OsDisk
from mqueue.broker.wal.quarantine import quarantine
from mqueue.broker.wal.segment import HEADER_SIZE, name


def damage(path: Path, record: int) -> None:
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + record * FRAME + 10] ^= 4
    path.write_bytes(data)


def test_the_broker_starts_again_with_all_that_reads(directory: Path) -> None:  # noqa: F811
    log = directory / "shard-3"
    damage(log / name(1), 1)
    old = contents(log)
    before = contents(directory)
    with pytest.raises(WalCorrupt):
        ShardLog.open(log, 3, WHO)
    done = run("quarantine", directory)
    assert done.exit_code == 1
    assert "nothing was changed: --yes does it" in done.stderr
    assert done.stdout.splitlines() == [
        "shard 3: 5 records read; lost is what stood at:",
        f"  {log / name(1)}: at byte 66 (26 bytes): no valid record, but one follows at byte 92; between sequence 1 and 3",
    ]
    assert contents(directory).keys() - before.keys() <= {directory / "lock"}
    assert contents(log) == old

    done = run("quarantine", directory, "--yes")
    assert done.exit_code == 0, done.output
    aside = directory / "shard-3.quarantine-1"
    assert done.stdout.splitlines()[-1] == f"shard 3: a new log holds the 5 records; the old one is {aside}"
    assert {p.name: what for p, what in contents(aside).items()} == {p.name: what for p, what in old.items()}
    assert run("verify", directory).output == "shard 0: ok, 0 records\nshard 3: ok, 5 records\n"
    assert run("quarantine", directory, "--yes").output == "nothing is damaged\n"
    identity = Identity.open(directory)
    opened = ShardLog.open(identity.shard_directory(3), 3, identity.uuid)
    assert [r.sequence for r in opened.records(0)] == [1, 3, 4, 5, 6]
    opened.close()
    identity.close()

    damage(log / name(1), 0)
    assert run("quarantine", directory, "--yes").exit_code == 0
    assert (directory / "shard-3.quarantine-2").is_dir()
    assert recovered(log) == [3, 4, 5, 6]


def test_a_broker_that_runs_keeps_its_log(directory: Path) -> None:  # noqa: F811
    damage(directory / "shard-3" / name(1), 1)
    identity = Identity.open(directory)
    done = run("quarantine", directory, "--yes")
    assert done.exit_code == 75
    assert "in use" in done.stderr
    identity.close()


def test_a_long_log_keeps_its_segments_short(tmp_path: Path) -> None:
    log = tmp_path / "shard-3"
    paths = written(log, count=30)
    damage(paths[4], 0)
    quarantine(log, 3, WHO, segment_max=HEADER_SIZE + 4 * FRAME)
    assert recovered(log) == [*range(1, 13), *range(14, 31)]
    assert [p.stat().st_size for p in sorted(log.glob("*.wal"))] == [HEADER_SIZE + 5 * FRAME] * 5 + [HEADER_SIZE + 4 * FRAME]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_was_hit_the_good_records_are_kept_in_order(tmp_path: Path, seed: int) -> None:
    """Bytes overwritten at random, also across records and headers."""
    rng = random.Random(seed)
    log = tmp_path / "shard-3"
    paths = written(log, count=12)
    for _ in range(3):
        path = rng.choice(paths)
        data = bytearray(path.read_bytes())
        at, size = rng.randrange(len(data)), rng.randrange(1, 60)
        data[at : at + size] = rng.randbytes(len(data[at : at + size]))
        path.write_bytes(data)
    whole = {n for n in range(1, 13) if f"no {n:02}".encode() in b"".join(p.read_bytes() for p in paths)}
    quarantine(log, 3, WHO)
    found = recovered(log)
    assert found == sorted(set(found))
    assert set(found) <= whole
    assert len(found) >= 1


class StoppingDisk(OsDisk):
    """The process dies before its `last`-th call."""

    def __init__(self, last: int) -> None:
        self.left = last
        self.calls: list[str] = []

    def __getattribute__(self, call: str):
        if call in ("create", "write", "fsync", "rename", "sync_directory", "unlink"):
            if self.left <= 0:
                raise PowerLoss
            self.left -= 1
            self.calls.append(call)
        return super().__getattribute__(call)


def test_at_any_instant_the_old_or_the_new_log_stands(tmp_path: Path) -> None:
    written(tmp_path / "made" / "shard-3")
    damage(tmp_path / "made" / "shard-3" / name(1), 1)
    old = {p.name: p.read_bytes() for p in (tmp_path / "made" / "shard-3").iterdir()}
    for last in range(100):
        place = tmp_path / f"at-{last}"
        shutil.copytree(tmp_path / "made", place)
        log, disk = place / "shard-3", StoppingDisk(last)
        try:
            quarantine(log, 3, WHO, disk=disk)
            done = True
        except PowerLoss:
            done = False
        again = place.with_name(f"again-{last}")
        shutil.copytree(place, again)
        try:
            assert recovered(log) == [1, 3, 4, 5, 6]
            kept = place / "shard-3.quarantine-1"
        except WalCorrupt:
            kept = log
        assert {p.name: p.read_bytes() for p in kept.iterdir()} == old
        if kept == log:
            quarantine(again / "shard-3", 3, WHO)  # and it can be said again
            assert recovered(again / "shard-3") == [1, 3, 4, 5, 6]
            assert sorted(p.name for p in again.iterdir()) == ["shard-3", "shard-3.quarantine-1"]
        if done:
            assert disk.calls[-6:] == ["rename", "sync_directory"] * 3
            return
    pytest.fail("never got to the end")
