"""What a crash may leave, and what must never be read from it: cuts, flips, lost pages, lost names."""

import asyncio
import errno
import shutil
import uuid
from pathlib import Path

import pytest

from mqueue.broker.wal import LogRecord, ShardLog, WalCorrupt
from mqueue.broker.wal.disk import OsDisk
from mqueue.broker.wal.frame import FRAME_MIN
from mqueue.broker.wal.recovery import inspect
from mqueue.broker.wal.segment import HEADER_SIZE

WHO = uuid.UUID("6d717565-7565-4000-8000-000000000001")
FRAME = FRAME_MIN + 5


def written(directory: Path, count: int = 6, segment_max: int = HEADER_SIZE + 2 * FRAME) -> list[Path]:
    """A log of `count` equal records, three in a segment; its files."""

    async def write() -> None:
        log = ShardLog.open(directory, 3, WHO, segment_max=segment_max)
        for n in range(1, count + 1):
            await log.commit(LogRecord(n, 1, 1, f"no {n:02}".encode()))
        log.close()

    asyncio.run(write())
    return sorted(directory.glob("*.wal"))


def recovered(directory: Path) -> list[int]:
    log = ShardLog.open(directory, 3, WHO)
    try:
        return [record.sequence for record in log.records(0)]
    finally:
        log.close()


def read(directory: Path) -> list[int]:
    """What recovery would find, without the writing."""
    found = inspect(directory, 3, WHO)
    records = [r.sequence for s in found.sealed for r in s.read(HEADER_SIZE, s.size)]
    if found.segment:
        records += [r.sequence for r in found.segment.read(HEADER_SIZE, found.segment.size)]
    return records


def test_cut_anywhere_in_the_last_segment_leaves_the_whole_records_before_the_cut(tmp_path: Path) -> None:
    _, last = written(tmp_path)
    whole = last.read_bytes()
    for cut in range(len(whole)):
        last.write_bytes(whole[:cut])
        kept = max(0, (cut - HEADER_SIZE) // FRAME)
        assert recovered(tmp_path) == list(range(1, 4 + kept)), cut
        aside = list(tmp_path.glob("*.torn-*"))
        torn = whole[HEADER_SIZE + kept * FRAME : cut] if cut >= HEADER_SIZE else whole[:cut]
        assert [p.read_bytes() for p in aside] == ([torn] if torn else []), cut
        for p in aside:
            p.unlink()


def test_cut_anywhere_in_an_earlier_segment_is_corruption(tmp_path: Path) -> None:
    first, _ = written(tmp_path)
    whole = first.read_bytes()
    for cut in range(len(whole)):
        first.write_bytes(whole[:cut])
        with pytest.raises(WalCorrupt):
            inspect(tmp_path, 3, WHO)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    first, last = written(tmp_path)
    for path in (first, last):
        whole = bytearray(path.read_bytes())
        for bit in range(len(whole) * 8):
            whole[bit // 8] ^= 1 << bit % 8
            path.write_bytes(whole)
            if path == last and bit // 8 >= len(whole) - FRAME:
                assert read(tmp_path) == [1, 2, 3, 4, 5], bit  # the very last record: no telling it from a torn one
            else:
                with pytest.raises(WalCorrupt) as caught:
                    inspect(tmp_path, 3, WHO)
                assert caught.value.file == path
                assert caught.value.offset <= bit // 8
            whole[bit // 8] ^= 1 << bit % 8
        path.write_bytes(whole)
    assert read(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_corruption_changes_nothing(tmp_path: Path) -> None:
    _, last = written(tmp_path)
    data = bytearray(last.read_bytes())
    data[HEADER_SIZE + 20] ^= 1
    last.write_bytes(data)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(WalCorrupt) as caught:
        recovered(tmp_path)
    assert (caught.value.file, caught.value.offset, caught.value.exit_code) == (last, HEADER_SIZE, 65)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_missing_or_foreign_segment_is_corruption(tmp_path: Path) -> None:
    _, second, third = written(tmp_path / "a", count=9)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second.rename(tmp_path / "kept")
    with pytest.raises(WalCorrupt, match="missing"):
        recovered(tmp_path / "a")
    shutil.copy(third, second)
    third.unlink()
    with pytest.raises(WalCorrupt, match="follows sequence 6"):
        recovered(tmp_path / "a")
    with pytest.raises(WalCorrupt, match="belongs to shard 3"):
        ShardLog.open(tmp_path / "b", 4, WHO)
    with pytest.raises(WalCorrupt, match="belongs to broker"):
        ShardLog.open(tmp_path / "b", 3, uuid.uuid4())
    assert recovered(tmp_path / "b") == list(range(1, 10))


def test_zeros_and_garbage_behind_the_end_are_torn_and_the_newest_are_kept(tmp_path: Path) -> None:
    (only,) = written(tmp_path, segment_max=2**20)
    for n in range(20):
        with only.open("ab") as file:
            file.write(bytes(5000) if n % 2 else b"\x20\x00\x00\x00 garbage" * 50)
        assert recovered(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert [p.name[-2:] for p in sorted(tmp_path.glob("*.torn-*"))] == [f"{n:02}" for n in range(5, 21)]


class PowerLoss(Exception):
    pass


class ForgetfulDisk(OsDisk):
    """A disk that loses power at its `last`-th call, and can then show what was synced only, or more of it."""

    def __init__(self, directory: Path, last: int) -> None:
        self.directory, self.left = directory, last
        self.fds: dict[int, dict] = {}  # what each open descriptor writes to
        self.at: dict[int, int] = {}  # where, if not at the end
        self.names = {p.name: self._file(p.read_bytes()) for p in directory.iterdir()}
        self.durable = dict(self.names)

    @staticmethod
    def _file(data: bytes) -> dict:
        return {"now": data, "synced": data}

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise PowerLoss

    def create(self, path: Path) -> int:
        self._step()
        fd = super().create(path)
        self.names[path.name] = self.fds[fd] = self._file(b"")
        return fd

    def open(self, path: Path, *, append: bool = False) -> int:
        fd = super().open(path, append=append)
        self.fds[fd] = self.names[path.name]
        if not append:
            self.at[fd] = 0
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        half = data[: max(1, len(data) // 2)]  # so that power can go between the halves of a record
        self._step()
        written = super().write(fd, half)
        file = self.fds[fd]
        at = self.at.get(fd, len(file["now"]))
        file["now"] = file["now"][:at] + bytes(half[:written]) + file["now"][at + written :]
        if fd in self.at:
            self.at[fd] += written
        return written

    def truncate(self, fd: int, size: int) -> None:
        self._step()
        super().truncate(fd, size)
        self.fds[fd]["now"] = self.fds[fd]["now"][:size]

    def fdatasync(self, fd: int) -> None:
        self._step()
        self.fds[fd]["synced"] = self.fds[fd]["now"]

    fsync = fdatasync

    def close(self, fd: int) -> None:
        super().close(fd)
        del self.fds[fd]
        self.at.pop(fd, None)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        super().rename(old, new)
        self.names[new.name] = self.names.pop(old.name)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)
        del self.names[path.name]

    def sync_directory(self, path: Path) -> None:
        self._step()
        if path == self.directory:
            self.durable = dict(self.names)

    def show(self, directory: Path, *, names_survive: bool, share: float) -> None:
        """Write what a restart finds: of the bytes not synced this share. The process that wrote is gone."""
        for fd in list(self.fds):
            self.close(fd)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name, file in (self.names if names_survive else self.durable).items():
            unsynced = file["now"][len(file["synced"]) :]
            kept = int(len(unsynced) * share)
            (directory / name).write_bytes(file["synced"] + unsynced[:kept])


class Run:
    """Opens a log, writes to it on a forgetful disk until the power goes, remembers what was acknowledged."""

    def __init__(self, directory: Path, last: int) -> None:
        self.disk = ForgetfulDisk(directory, last)
        self.directory = directory
        self.acked: list[int] = []
        self.started: list[int] = []
        self.position = 0

    def go(self, first: int, count: int) -> bool:
        """False when the power went before the end."""
        try:
            log = ShardLog.open(self.directory, 3, WHO, segment_max=150, keep_s=0, disk=self.disk)
        except PowerLoss:
            return False
        try:
            asyncio.run(self._write(log, first, count))
        except PowerLoss:
            return False
        finally:
            log._thread.close()
        return True

    async def _write(self, log: ShardLog, first: int, count: int) -> None:
        for n in range(first, first + count):
            self.started.append(n)
            await log.commit(LogRecord(n, 1, 1, bytes(30)))
            self.acked.append(n)
            log.append(LogRecord(n, 1, 2, b"outcome"))
            if n % 3 == 0:
                self.position = n - 2
                log.remove_flushed(self.position, now=float(n))


@pytest.mark.parametrize(("names_survive", "share"), [(False, 0.0), (True, 0.0), (True, 0.5), (True, 1.0)])
def test_power_loss_at_any_call_loses_nothing_acknowledged(tmp_path: Path, names_survive: bool, share: float) -> None:
    """And once more during the recovery from it."""
    for last in range(400):
        live, after = tmp_path / "live", tmp_path / "after"
        shutil.rmtree(live, ignore_errors=True)
        live.mkdir()
        run = Run(live, last)
        done = run.go(1, 10)
        run.disk.show(after, names_survive=names_survive, share=share)
        expect(after, run)
        again = Run(after, last % 12)
        again.go(11, 0)
        again.disk.show(live, names_survive=names_survive, share=share)
        expect(live, run)
        if done:
            assert last > 60, "the log was to be exercised"
            return
    pytest.fail("never got to the end")


def expect(directory: Path, run: Run) -> None:
    enqueued = [r.sequence for r in inspect_records(directory) if r.kind == 1]
    must = [n for n in run.acked if n > run.position]
    assert set(must) <= set(enqueued) <= set(run.started), (must, enqueued)
    assert enqueued == list(range(enqueued[0], enqueued[-1] + 1)) if enqueued else True


def inspect_records(directory: Path) -> list[LogRecord]:
    found = inspect(directory, 3, WHO)
    segments = [*found.sealed, *([found.segment] if found.segment else [])]
    return [r for s in segments for r in s.read(HEADER_SIZE, s.size)]


class FullDisk(ForgetfulDisk):
    """It has no room for a second copy of a segment."""

    def create(self, path: Path) -> int:
        if path.name.endswith(".wal.tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().create(path)


@pytest.mark.parametrize(("names_survive", "share"), [(False, 0.0), (True, 0.0), (True, 0.5), (True, 1.0)])
def test_power_loss_while_a_segment_is_written_over_itself(tmp_path: Path, names_survive: bool, share: float) -> None:
    """What stands in it was acknowledged, but for the last record, which is in the page cache only, and a torn one
    behind it.
    """
    *_, path = written(tmp_path / "made", segment_max=2**20)
    with path.open("ab") as file:
        file.write(b"\x20\x00\x00\x00 torn")
    for last in range(100):
        live, after = tmp_path / "live", tmp_path / "after"
        shutil.rmtree(live, ignore_errors=True)
        shutil.copytree(tmp_path / "made", live)
        disk = FullDisk(live, last)
        disk.names[path.name]["synced"] = disk.names[path.name]["now"][: HEADER_SIZE + 5 * FRAME]
        try:
            log = ShardLog.open(live, 3, WHO, disk=disk)
            assert [r.sequence for r in log.records(0)] == [1, 2, 3, 4, 5, 6]
            done = True
        except PowerLoss:
            done = False
        disk.show(after, names_survive=names_survive, share=share)
        assert read(after) in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5])
        if done:
            assert read(after) == [1, 2, 3, 4, 5, 6], "what was found counts: it is durable"
            log._thread.close()
            return
    pytest.fail("never got to the end")


def test_a_log_written_over_itself_goes_on(tmp_path: Path) -> None:
    *_, path = written(tmp_path, segment_max=2**20)
    with path.open("ab") as file:
        file.write(b"\x20\x00\x00\x00 torn")
    disk = FullDisk(tmp_path, 10**6)
    log = ShardLog.open(tmp_path, 3, WHO, disk=disk)
    asyncio.run(log.commit(LogRecord(7, 1, 1, b"no 07")))
    log.append(LogRecord(7, 1, 2, b"more"))
    log.close()
    assert recovered(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 7]
    assert [p.read_bytes() for p in tmp_path.glob("*.torn-*")] == [b"\x20\x00\x00\x00 torn"]
