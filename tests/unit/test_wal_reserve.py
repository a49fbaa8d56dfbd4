"""A start on a full volume has the reserve; it comes back by itself."""

import asyncio
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqueue.broker.wal import Identity, LogRecord, ShardLog, WalBroken, WalFull
from mqueue.broker.wal.disk import OsDisk
from mqueue.broker.wal.identity import held
from mqueue.broker.wal.reserve import LEAST, SIZE, Reserve
from tests.volume import fill, make_read_only, mounted

WHO = uuid.UUID("6d717565-7565-4000-8000-000000000001")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "volume", megabytes=12) as path:
        yield path


def test_it_is_really_allocated_and_leaves_the_log_as_much(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, OsDisk())
    assert reserve.bytes == 0
    assert reserve.keep()
    assert reserve.bytes >= SIZE == (tmp_path / "reserve").stat().st_size
    assert reserve.keep()


def test_none_is_made_where_it_would_take_the_logs_room(volume: Path) -> None:
    fill(volume, leave=2 * SIZE - 4096)
    reserve = Reserve(volume, OsDisk())
    assert not reserve.keep()
    assert not (volume / "reserve").exists()
    (volume / "filler").unlink()
    assert reserve.keep()


def test_a_full_volume_does_not_stop_a_start(volume: Path) -> None:
    identity = Identity.open(volume / "wal")
    log = ShardLog.open(identity.shard_directory(0), 0, identity.uuid)
    asyncio.run(log.commit(LogRecord(1, 1, 1, bytes(500_000))))
    assert identity.reserve.keep()
    log.close()
    identity.close()
    segment = next(identity.shard_directory(0).glob("*.wal"))
    for torn in (b"", b"\x20\x00\x00\x00 torn"):
        with segment.open("ab") as file:
            file.write(torn)
        fill(volume)
        identity = Identity.open(volume / "wal")
        opened = identity.reserve.with_room(lambda: ShardLog.open(identity.shard_directory(0), 0, identity.uuid))
        assert [len(r.payload) for r in opened.records(0)] == [500_000]
        identity.reserve.keep()
        assert SIZE - 4 * LEAST < identity.reserve.bytes < SIZE, "what is left of it is taken back"
        with pytest.raises(WalFull):
            asyncio.run(opened.commit(LogRecord(2, 1, 1, bytes(500_000))))
        opened.close()
        identity.close()

    (volume / "wal" / "reserve").unlink()
    fill(volume)
    with pytest.raises(WalFull):
        Identity.open(volume / "wal")
    (volume / "filler").unlink()
    identity = Identity.open(volume / "wal")
    assert identity.reserve.keep(), "there is room again"
    identity.close()


def test_a_segment_too_long_for_a_second_copy(volume: Path) -> None:
    """Longer than the reserve: it is written over itself."""
    identity = Identity.open(volume / "wal")
    log = ShardLog.open(identity.shard_directory(0), 0, identity.uuid)
    asyncio.run(log.commit(LogRecord(1, 1, 1, os.urandom(7_000_000))))
    identity.reserve._take(1_000_000)
    log.close()
    identity.close()
    fill(volume)
    identity = Identity.open(volume / "wal")
    opened = identity.reserve.with_room(lambda: ShardLog.open(identity.shard_directory(0), 0, identity.uuid))
    assert opened.last_sequence == 1
    asyncio.run(opened.commit(LogRecord(2, 1, 1, b"goes on")))
    opened.close()
    identity.close()


class TightDisk(OsDisk):
    """Full while the reserve stands, or for good."""

    def __init__(self, directory: Path, code: int = errno.ENOSPC) -> None:
        self.reserve = directory / "reserve"
        self.code = code
        self.allocates = True

    def write(self, fd: int, data: memoryview) -> int:
        if self.reserve.exists():
            raise OSError(self.code, os.strerror(self.code))
        return super().write(fd, data)

    def allocate(self, fd: int, size: int) -> None:
        if not self.allocates:
            raise OSError(self.code, os.strerror(self.code))
        super().allocate(fd, size)


def test_only_want_of_room_spends_it(tmp_path: Path) -> None:
    Identity.open(tmp_path).close()
    (tmp_path / "reserve").write_bytes(bytes(SIZE))
    with pytest.raises(WalBroken):
        Identity.open(tmp_path, disk=TightDisk(tmp_path, errno.EIO))
    assert (tmp_path / "reserve").exists()
    identity = Identity.open(tmp_path, disk=TightDisk(tmp_path))
    assert identity.start_count == 2
    assert not (tmp_path / "reserve").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_cannot_be_allocated_is_no_reserve_and_no_error(tmp_path: Path, code: int) -> None:
    disk = TightDisk(tmp_path, code)
    disk.allocates = False
    assert not Reserve(tmp_path, disk).keep()
    assert list(tmp_path.iterdir()) == []


def test_the_directory_copied_without_it_is_complete(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path / "a")
    identity.reserve.keep()
    identity.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("reserve"))
    Identity.open(tmp_path / "b", moved=True).close()


def test_a_dead_hosts_disk_may_be_mounted_read_only(volume: Path) -> None:
    Identity.open(volume / "wal").close()
    make_read_only(volume)
    with held(volume / "wal") as state:
        assert state.start_count == 1
    with pytest.raises(WalBroken, match="Read-only"):
        Identity.open(volume / "wal")
