"""Whose log it is: one process, one place, one node number, and every start counted."""

import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import uuid
from pathlib import Path

import pytest

from mqueue.broker.wal import Identity, ShardLog, WalBroken, WalCopied, WalCorrupt, WalError, WalLocked, WalRetired
from mqueue.broker.wal.disk import OsDisk
from mqueue.broker.wal.identity import START_MAX, held, look, retire


def reopened(identity: Identity) -> Identity:
    identity.close()
    return Identity.open(identity.directory)


def test_a_new_directory_becomes_an_identity_that_stays(tmp_path: Path) -> None:
    first = Identity.open(tmp_path / "data" / "wal")
    assert stat.S_IMODE(first.directory.stat().st_mode) == 0o700
    assert (first.node, first.start_count, first.id_floor_ms) == (None, 1, 0)
    first.set_node(17)
    first.reserve_ids(5000)
    first.reserve_ids(4000)
    second = reopened(first)
    assert (second.uuid, second.node, second.start_count, second.id_floor_ms) == (first.uuid, 17, 2, 5000)
    second.close()
    second.close()


def test_the_node_number_never_changes(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path)
    identity.set_node(17)
    identity.set_node(17)
    for bad in (18, -1, 1024):
        with pytest.raises(ValueError):
            identity.set_node(bad)
    assert reopened(identity).node == 17


def test_one_process_at_a_time(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path)
    with pytest.raises(WalLocked, match=f"process {os.getpid()}"):
        Identity.open(tmp_path)
    code = """
        import sys
        from pathlib import Path
        from mqueue.broker.wal import Identity, WalLocked
        try:
            Identity.open(Path(sys.argv[1]))
        except WalLocked as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert f"process {os.getpid()}" in done.stdout, done.stderr
    assert reopened(identity).start_count == 2, "a refused start is none"


def test_a_copy_is_refused_and_a_move_is_allowed_on_demand(tmp_path: Path) -> None:
    original = Identity.open(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(WalCopied, match="MQUEUE_WAL_MOVED=1"):
        Identity.open(tmp_path / "b")
    moved = Identity.open(tmp_path / "b", moved=True)
    assert moved.uuid == original.uuid
    assert reopened(moved).start_count == 3, "said once is enough"


def test_a_renamed_directory_is_the_same_one(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path / "a")
    identity.close()
    (tmp_path / "a").rename(tmp_path / "b")
    assert Identity.open(tmp_path / "b").uuid == identity.uuid


def test_what_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path)
    ShardLog.open(identity.shard_directory(0), 0, identity.uuid).close()
    identity.close()
    file = tmp_path / "broker.json"
    for bad in (b"", b"{", b"\xff\xfe", b'{"uuid": 1}', file.read_bytes()[:-5]):
        file.write_bytes(bad)
        with pytest.raises(WalCorrupt):
            Identity.open(tmp_path)
        assert file.read_bytes() == bad
    file.unlink()
    with pytest.raises(WalCorrupt, match="missing"):
        Identity.open(tmp_path)


def test_of_two_reservations_at_once_the_higher_stays(tmp_path: Path) -> None:
    class Slow(OsDisk):
        gate: threading.Event | None = None

        def fsync(self, fd: int) -> None:
            if self.gate:
                waiting.set()
                assert self.gate.wait(10)
            super().fsync(fd)

    disk, waiting = Slow(), threading.Event()
    identity = Identity.open(tmp_path, disk=disk)
    disk.gate = threading.Event()
    threads = [threading.Thread(target=identity.reserve_ids, args=(ms,)) for ms in (2000, 1000)]
    threads[0].start()
    assert waiting.wait(10)
    threads[1].start()  # sees the old floor, waits for the first
    threads[1].join(0.2)
    disk.gate.set()
    for thread in threads:
        thread.join(10)
    assert identity.id_floor_ms == reopened(identity).id_floor_ms == 2000


def test_it_begins_after_what_was_used_under_its_number(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path)
    identity.begin_after(0, 0)
    assert (identity.start_count, identity.id_floor_ms) == (1, 0)
    identity.begin_after((1 << 40) - 1, 0)
    assert identity.start_count == 1
    identity.begin_after((5 << 40) + 9, 7000)
    assert (identity.start_count, identity.id_floor_ms) == (6, 7000)
    identity.begin_after((5 << 40) + 9, 6000)
    assert (identity.start_count, identity.id_floor_ms) == (6, 7000)
    again = reopened(identity)
    assert (again.start_count, again.id_floor_ms) == (7, 7000)


def test_a_retired_directory_is_nobodys(tmp_path: Path) -> None:
    Identity.open(tmp_path).close()
    retire(tmp_path)
    for take in (Identity.open, look):
        with pytest.raises(WalRetired, match="empty WAL directory"):
            take(tmp_path)


def test_a_directory_can_be_held_wherever_it_was_made(tmp_path: Path) -> None:
    Identity.open(tmp_path / "a").close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before = (tmp_path / "b" / "broker.json").read_bytes()
    with held(tmp_path / "b") as state, pytest.raises(WalLocked), held(tmp_path / "b"):
        pass
    assert state.start_count == 1
    assert (tmp_path / "b" / "broker.json").read_bytes() == before
    with pytest.raises(WalCorrupt, match="missing"), held(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_starts_end_somewhere(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path)
    identity._change(start_count=START_MAX)
    identity.close()
    with pytest.raises(WalError, match="new WAL directory"):
        Identity.open(tmp_path)


def test_a_start_that_cannot_be_made_durable_is_none(tmp_path: Path) -> None:
    class Broken(OsDisk):
        def fsync(self, fd: int) -> None:
            raise OSError(5, "Input/output error")

    Identity.open(tmp_path).close()
    with pytest.raises(WalBroken):
        Identity.open(tmp_path, disk=Broken())
    assert Identity.open(tmp_path).start_count == 2, "and the lock is free again"


def test_uuids_differ(tmp_path: Path) -> None:
    a, b = Identity.open(tmp_path / "a"), Identity.open(tmp_path / "b")
    assert isinstance(a.uuid, uuid.UUID)
    assert a.uuid != b.uuid
