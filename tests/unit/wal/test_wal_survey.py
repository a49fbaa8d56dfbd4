"""Reading on behind damage, and what `mqueue wal inspect` and `verify` say of a directory."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_wal_crash import FRAME, WHO, written

from mqueue.broker.wal import Identity, LogRecord, ShardLog, WalCorrupt
from mqueue.broker.wal.recovery import inspect
from mqueue.broker.wal.segment import HEADER_SIZE, name
from mqueue.broker.wal.survey import Damage, survey
from mqueue.cli.main import main


def surveyed(directory: Path) -> tuple[list[int], list[Damage], int]:
    """Sequences, damages, torn bytes."""
    parts = list(survey(directory, 3, WHO))
    return [r.sequence for p in parts for r in p.records], [d for p in parts for d in p.damages], parts[-1].torn if parts else 0


def is_sound(directory: Path) -> bool:
    try:
        inspect(directory, 3, WHO)
    except WalCorrupt:
        return False
    return True


def test_every_flipped_bit_costs_one_record_and_recovery_agrees_what_is_damage(tmp_path: Path) -> None:
    paths = written(tmp_path)
    for n, path in enumerate(paths):
        whole = bytearray(path.read_bytes())
        for bit in range(len(whole) * 8):
            whole[bit // 8] ^= 1 << bit % 8
            path.write_bytes(whole)
            found, damages, torn = surveyed(tmp_path)
            assert bool(damages) != is_sound(tmp_path), bit
            at = (bit // 8 - HEADER_SIZE) // FRAME
            lost = {3 * n + at + 1} if at >= 0 else set()  # a header is known from what it must be
            assert found == [s for s in range(1, 7) if s not in lost], bit
            assert torn == (FRAME if lost == {6} else 0)
            if damages:
                assert damages[0].path == path
                assert (damages[0].before, damages[0].after) == (min(lost, default=3 * n + 1) - 1, min(lost, default=3 * n) + 1)
            whole[bit // 8] ^= 1 << bit % 8
        path.write_bytes(whole)
    assert surveyed(tmp_path) == ([1, 2, 3, 4, 5, 6], [], 0)


def test_a_cut_anywhere_keeps_the_whole_records(tmp_path: Path) -> None:
    first, last = written(tmp_path)
    for path, before, after in ((first, 0, 3), (last, 3, 0)):
        whole = path.read_bytes()
        for cut in range(len(whole)):
            path.write_bytes(whole[:cut])
            found, damages, _ = surveyed(tmp_path)
            kept = max(0, (cut - HEADER_SIZE) // FRAME)
            assert found == [*range(1, before + 1), *range(before + 1, before + kept + 1), *range(4, 4 + after)], cut
            assert bool(damages) != is_sound(tmp_path), cut
        path.write_bytes(whole)


def test_a_missing_segment_and_one_of_another_broker(tmp_path: Path) -> None:
    _, second, third = written(tmp_path, count=9)
    kept = second.read_bytes()
    second.unlink()
    found, damages, _ = surveyed(tmp_path)
    assert found == [1, 2, 3, 7, 8, 9]
    [missing] = damages
    assert (missing.path, missing.before, missing.after) == (second, 3, 7)
    second.write_bytes(kept[:12] + bytes(16) + kept[28:])
    assert surveyed(tmp_path)[0] == [1, 2, 3, 4, 5, 6, 7, 8, 9], "its identity was damaged, not another's"
    shutil.copy(third, second)
    found, damages, _ = surveyed(tmp_path)
    assert found == [1, 2, 3, 7, 8, 9, 9]  # the last one may be of the batch before
    assert damages


def test_old_blocks_that_came_back_are_passed_by(tmp_path: Path) -> None:
    (only,) = written(tmp_path, segment_max=2**20)
    whole = only.read_bytes()
    at = HEADER_SIZE + 2 * FRAME
    only.write_bytes(whole[:at] + whole[HEADER_SIZE : HEADER_SIZE + FRAME] + whole[at + FRAME :])
    found, [damage], _ = surveyed(tmp_path)
    assert found == [1, 2, 4, 5, 6]
    assert (damage.before, damage.after, damage.reason) == (2, 4, "sequence 1 after 2")


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A broker's directory with shards 0 and 3, of records 1 to 6."""
    identity = Identity.open(tmp_path / "wal")
    identity.set_node(17)
    identity._change(uuid=WHO)
    written(identity.shard_directory(3))
    ShardLog.open(identity.shard_directory(0), 0, WHO).close()
    identity.close()
    return identity.directory


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["wal", *map(str, words)])


def contents(directory: Path) -> dict[Path, tuple[bytes, int]]:
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.rglob("*") if p.is_file()}


def test_inspect_tells_all_and_changes_nothing(directory: Path) -> None:
    before = contents(directory)
    done = run("inspect", directory)
    assert done.output.splitlines() == [
        f"identity     {WHO}",
        "node         17",
        "starts       1",
        "in use       no",
        "shard 0",
        f"  {name(1)}  0 records, 40 bytes, after sequence 0",
        "  no records",
        "shard 3",
        f"  {name(1)}  3 records, 118 bytes, sequence 1 to 3",
        f"  {name(2)}  3 records, 118 bytes, sequence 4 to 6",
        "  enqueue: 6",
    ]
    assert run("verify", directory).output == "shard 0: ok, 0 records\nshard 3: ok, 6 records\n"
    assert contents(directory) == before


def test_both_work_while_a_broker_has_the_directory(directory: Path) -> None:
    identity = Identity.open(directory)
    log = ShardLog.open(identity.shard_directory(3), 3, WHO)
    log.append(LogRecord(7, 2, 2, b"outcome"))
    done = run("inspect", directory)
    assert "in use       yes" in done.output
    assert "enqueue: 6, outcome: 1" in done.output
    assert "shard 3: ok, 7 records" in run("verify", directory).output
    log.close()
    identity.close()


def test_a_torn_end_is_said_and_is_no_error(directory: Path) -> None:
    with (directory / "shard-3" / name(2)).open("ab") as file:
        file.write(b"\x20\x00\x00\x00 torn")
    done = run("verify", directory)
    assert done.exit_code == 0
    assert "shard 3: ok, 6 records; 9 bytes at the end are no whole record (cut at the next start, never acknowledged)" in done.output
    assert "9 bytes at the end are no whole record" in run("inspect", directory).output


def test_damage_ends_with_65_and_names_file_offset_reason_and_gap(directory: Path) -> None:
    path = directory / "shard-3" / name(1)
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + FRAME + 3] ^= 8
    path.write_bytes(data)
    done = run("verify", directory)
    assert done.exit_code == 65
    assert done.output.splitlines() == [
        "shard 0: ok, 0 records",
        f"shard 3: {path}: at byte 66 (26 bytes): no valid record, but one follows at byte 92; between sequence 1 and 3",
    ]
    assert "damaged at byte 66" in run("inspect", directory).output


def test_what_is_no_wal_directory(tmp_path: Path) -> None:
    done = run("inspect", tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (65, 1)
    assert "broker.json: at byte 0: missing" in done.stderr
    assert run("inspect", tmp_path / "nowhere").exit_code == 2


def test_a_later_version_is_not_judged(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(directory / "shard-4")
    monkeypatch.setattr("mqueue.broker.wal.segment.VERSION", 1)
    done = run("verify", directory)
    assert done.exit_code == 65
    assert "version 2" in done.stderr
