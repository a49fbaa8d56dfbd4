"""ShardLog: commit, append, rotate, read on, remove, and what a failing disk does to it."""

import asyncio
import errno
import os
import subprocess
import sys
import textwrap
import threading
import uuid
from pathlib import Path

import pytest

from mqueue.broker.wal import LogRecord, ShardLog, WalBroken, WalFull
from mqueue.broker.wal.disk import OsDisk
from tests.waiting import until

WHO = uuid.UUID("6d717565-7565-4000-8000-000000000001")


def record(sequence: int, payload: bytes = b"payload") -> LogRecord:
    return LogRecord(sequence, 1, 1, payload)


def open_log(directory: Path, **options) -> ShardLog:
    return ShardLog.open(directory, 3, WHO, **options)


def sequences(log: ShardLog, after: int = 0) -> list[int]:
    return [r.sequence for r in log.records(after)]


class FailingDisk(OsDisk):
    """Raises `error` in the calls named in `fail`."""

    def __init__(self, *fail: str, error: int = errno.EIO) -> None:
        self.fail, self.error = set(fail), error

    def __getattribute__(self, name: str):
        if name in ("write", "truncate", "fdatasync", "fsync", "rename", "unlink", "sync_directory") and name in self.fail:

            def refuse(*_: object) -> None:
                raise OSError(self.error, os.strerror(self.error))

            return refuse
        return super().__getattribute__(name)


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    log = open_log(tmp_path / "shard-3")
    assert (log.last_sequence, log.segments, sequences(log)) == (0, 1, [])
    await log.commit(record(5))
    log.append(record(5, b"outcome"))
    await log.commit(record(6, bytes(100_000)))
    log.close()
    log = open_log(tmp_path / "shard-3")
    assert [r.payload for r in log.records(0)] == [b"payload", b"outcome", bytes(100_000)]
    assert (log.last_sequence, sequences(log, after=5)) == (6, [6])
    await log.commit(record(7))
    assert sequences(log) == [5, 5, 6, 7]
    log.close()


async def test_a_lower_sequence_is_a_programming_error(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    await log.commit(record(5))
    with pytest.raises(ValueError):
        log.append(record(4))
    with pytest.raises(ValueError):
        await log.commit(record(4))
    await log.commit(record(5))
    log.close()


async def test_segments_grow_rotate_and_go(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_max=300, keep_s=60)
    for n in range(1, 31):
        await log.commit(record(n, bytes(100)))
    assert log.segments == len(list(tmp_path.glob("*.wal"))) == 10
    assert log.bytes == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert sequences(log) == list(range(1, 31))
    assert log.remove_flushed(7, now=1000.0) == 0, "kept 60 s longer"
    assert log.remove_flushed(7, now=1059.9) == 0
    assert log.remove_flushed(7, now=1060.0) == 2, "the third segment holds 7, 8, 9"
    assert sequences(log, after=6) == list(range(7, 31))
    assert log.remove_flushed(30, now=2000.0) == 0
    assert log.remove_flushed(30, now=2060.0) == 7
    assert (log.segments, log.last_sequence) == (1, 30), "never the active one"
    log.close()
    log = open_log(tmp_path, segment_max=300)
    assert (log.segments, log.last_sequence) == (1, 30)
    await log.commit(record(31))
    assert sequences(log)[-1] == 31
    log.close()


async def test_last_sequence_outlives_its_segment(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_max=50, keep_s=0)
    log.append(record(9, bytes(100)))
    await until(lambda: log.segments == 2, "appends alone rotate too")
    assert log.remove_flushed(9, now=1.0) == 1
    log.close()
    log = open_log(tmp_path)
    assert (log.last_sequence, sequences(log)) == (9, [])
    log.close()


async def test_reading_goes_on_while_the_log_grows(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_max=200)
    for n in range(1, 6):
        await log.commit(record(n))
    reader = log.records(2)
    assert next(reader).sequence == 3
    for n in range(6, 40):
        await log.commit(record(n))
    assert [r.sequence for r in reader] == list(range(4, 40))
    log.close()


async def test_appends_and_commits_at_once_keep_every_record_whole(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_max=20_000)
    expected = []
    for n in range(1, 101):
        commit = asyncio.create_task(log.commit(record(n, os.urandom(500))))
        await asyncio.sleep(0)
        for i in range(20):
            log.append(LogRecord(n, 1, 2, bytes([i]) * 50))
            expected.append((n, i))
        await commit
    log.close()
    log = open_log(tmp_path)
    found = list(log.records(0))
    assert [r.sequence for r in found if r.kind == 1] == list(range(1, 101))
    assert [(r.sequence, r.payload[0]) for r in found if r.kind == 2] == expected
    assert log.segments > 3
    log.close()


class SlowDisk(OsDisk):
    def __init__(self) -> None:
        self.syncing, self.go = threading.Event(), threading.Event()

    def fdatasync(self, fd: int) -> None:
        self.syncing.set()
        assert self.go.wait(10)
        super().fdatasync(fd)


async def test_an_append_does_not_wait_for_the_fsync_of_a_commit(tmp_path: Path) -> None:
    disk = SlowDisk()
    log = open_log(tmp_path, disk=disk)
    commit = asyncio.create_task(log.commit(record(1)))
    await asyncio.to_thread(disk.syncing.wait, 10)
    log.append(record(1, b"outcome"))
    assert not commit.done()
    disk.go.set()
    await commit
    assert sequences(log) == [1, 1]
    log.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_a_failed_fsync_breaks_the_log_for_ever(tmp_path: Path, code: int) -> None:
    disk = FailingDisk(error=code)
    log = open_log(tmp_path, disk=disk)
    await log.commit(record(1))
    disk.fail = {"fdatasync"}
    with pytest.raises(WalBroken):
        await log.commit(record(2))
    disk.fail = set()
    with pytest.raises(WalBroken):
        await log.commit(record(3))
    with pytest.raises(WalBroken):
        log.append(record(3))
    with pytest.raises(WalBroken):
        log.remove_flushed(3, now=0.0)
    log.close()
    log = open_log(tmp_path)
    assert sequences(log)[:1] == [1]
    log.close()


async def test_any_write_error_but_no_room_breaks_it(tmp_path: Path) -> None:
    disk = FailingDisk("write")
    log = open_log(tmp_path / "a")
    log._writer._disk = disk
    with pytest.raises(WalBroken):
        log.append(record(1))
    disk.fail = set()
    with pytest.raises(WalBroken):
        await log.commit(record(1))
    log.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_no_room_is_refused_and_passes(tmp_path: Path, code: int) -> None:
    disk = FailingDisk(error=code)
    log = open_log(tmp_path, disk=disk)
    await log.commit(record(1))
    disk.fail = {"write"}
    with pytest.raises(WalFull):
        await log.commit(record(2))
    with pytest.raises(WalFull):
        log.append(record(2))
    disk.fail = set()
    await log.commit(record(3))
    assert sequences(log) == [1, 3]
    log.close()


async def test_a_part_that_cannot_be_cut_away_breaks_it(tmp_path: Path) -> None:
    disk = FailingDisk(error=errno.ENOSPC)
    log = open_log(tmp_path, disk=disk)
    disk.fail = {"write", "truncate"}
    with pytest.raises(WalBroken):
        await log.commit(record(1))
    log.close()


async def test_no_room_for_a_new_segment(tmp_path: Path) -> None:
    disk = FailingDisk(error=errno.ENOSPC)
    log = open_log(tmp_path, segment_max=50, disk=disk)
    await log.commit(record(1, bytes(100)))
    disk.fail = {"fsync"}
    with pytest.raises(WalFull):
        await log.commit(record(2))
    disk.fail = set()
    await log.commit(record(3))
    assert (sequences(log), log.segments) == ([1, 3], 2)
    log.close()
    log = open_log(tmp_path)
    assert sequences(log) == [1, 3]
    log.close()


async def test_a_new_segment_whose_name_is_not_durable_breaks_it(tmp_path: Path) -> None:
    """The file is there: going on in the old one would let a restart find a record behind its end."""
    disk = FailingDisk(error=errno.ENOSPC)
    log = open_log(tmp_path, segment_max=50, disk=disk)
    await log.commit(record(1, bytes(100)))
    disk.fail = {"sync_directory"}
    with pytest.raises(WalBroken):
        await log.commit(record(2))
    log.close()


class WatchedDisk(OsDisk):
    """Notes its calls; `on_sync` runs once, in the middle of an fdatasync."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.synced = 0
        self.on_sync = None

    def fdatasync(self, fd: int) -> None:
        self.synced = os.fstat(fd).st_size
        call, self.on_sync = self.on_sync, None
        if call:
            call()

    def unlink(self, path: Path) -> None:
        self.calls.append(f"unlink {path.stem[-1]}")
        super().unlink(path)

    def sync_directory(self, path: Path) -> None:
        self.calls.append("sync")
        super().sync_directory(path)


async def test_what_is_appended_during_a_rotation_is_durable_before_the_next_segment_appears(tmp_path: Path) -> None:
    disk = WatchedDisk()
    log = open_log(tmp_path, segment_max=100, disk=disk)
    await log.commit(record(1, bytes(100)))
    disk.on_sync = lambda: log.append(record(1, b"came while the full segment was synced"))
    create, synced = disk.create, []
    disk.create = lambda path: synced.append(disk.synced) or create(path)
    await log.commit(record(2))
    assert synced == [(tmp_path / "0000000000000001.wal").stat().st_size]
    assert sequences(log) == [1, 1, 2]
    log.close()


async def test_each_removal_is_durable_before_the_next(tmp_path: Path) -> None:
    disk = WatchedDisk()
    log = open_log(tmp_path, segment_max=50, keep_s=0, disk=disk)
    for n in range(1, 5):
        await log.commit(record(n, bytes(100)))
    disk.calls.clear()
    assert log.remove_flushed(4, now=0.0) == 3
    assert disk.calls == ["unlink 1", "sync", "unlink 2", "sync", "unlink 3", "sync"]
    log.close()


async def test_closed_is_closed(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.close()
    log.close()
    with pytest.raises(WalBroken):
        await log.commit(record(1))
    with pytest.raises(WalBroken):
        log.append(record(1))


def test_a_partial_write_at_a_real_limit_is_cut_away(tmp_path: Path) -> None:
    """RLIMIT_FSIZE lets the kernel write a part of the record, then refuse: a torn record, made by the system
    itself.
    """
    script = """
        import asyncio, resource, sys, uuid
        from pathlib import Path
        from mqueue.broker.wal import LogRecord, ShardLog, WalFull
        log = ShardLog.open(Path(sys.argv[1]), 3, uuid.UUID(sys.argv[2]))

        async def main():
            await log.commit(LogRecord(1, 1, 1, bytes(500)))
            size = log.bytes
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, resource.RLIM_INFINITY))
            for write in (log.commit, log.append):
                try:
                    done = write(LogRecord(2, 1, 1, bytes(500)))
                    if done is not None:
                        await done
                except WalFull:
                    print("full")
            await log.commit(LogRecord(3, 1, 1, bytes(100)))
            log.close()
            print([r.sequence for r in log.records(0)], (log.bytes - size))

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(WHO)], capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.stdout.splitlines() == ["full", "full", "[1, 3] 121"], done.stderr
    log = open_log(tmp_path)
    assert sequences(log) == [1, 3]
    assert not list(tmp_path.glob("*.torn-*"))
    log.close()
