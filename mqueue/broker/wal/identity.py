"""An identity says whose log it is. A broker is its WAL directory: its uuid, its node number (part of every id it
makes), its count of starts.

Two processes with one identity would make the same ids and numbers. One directory is locked while in use (`lock`); a
copy of it is noticed because `broker.json` remembers which directory it was made in.
"""

import errno
import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from mqueue.broker.wal.disk import Disk, OsDisk, make_directory, publish
from mqueue.broker.wal.errors import WalCopied, WalCorrupt, WalError, WalLocked, WalRetired, refusal
from mqueue.broker.wal.reserve import Reserve

NODES = 1024
COUNTER_BITS = 40  # of a sequence; the start count stands above them
START_MAX = 2**23 - 1  # starts; below the sign
FILE = "broker.json"
RETIRED = "retired.json"  # its name once the node number is free


class State(msgspec.Struct, forbid_unknown_fields=True):
    """What `broker.json` holds. `device`, `filesystem`, `inode`: the directory. A device number may change at a reboot,
    a filesystem's id seldom does.
    """

    uuid: uuid.UUID
    device: int
    filesystem: int
    inode: int
    node: int | None = None
    start_count: int = 0
    id_floor_ms: int = 0


def look(directory: Path) -> State:
    """Returns whose directory it is, without taking it: a broker may run. Raises WalCorrupt, OSError."""
    state = _decode(directory)
    if state is None:
        raise WalCorrupt(directory / FILE, 0, "missing: is this the WAL directory of a broker?")
    return state


@contextmanager
def held(directory: Path) -> Iterator[State]:
    """Takes the directory as a broker takes it, wherever it was made, and without counting a start. A volume that is
    mounted read-only cannot be taken, by nobody. Raises WalLocked, WalCorrupt, OSError.
    """
    look(directory)
    try:
        lock_fd = _lock(directory)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        lock_fd = -1
    try:
        yield look(directory)
    finally:
        if lock_fd >= 0:
            os.close(lock_fd)


def retire(directory: Path, disk: Disk | None = None) -> None:
    """Makes sure that no broker starts on this directory any more. It must be held. Raises OSError."""
    disk = disk or OsDisk()
    disk.rename(directory / FILE, directory / RETIRED)
    disk.sync_directory(directory)


class Identity:
    """The identity of a directory that is taken. Changes are durable when a method returns. Methods may come from any
    thread; all but the properties block on the disk.
    """

    def __init__(self, directory: Path, state: State, lock_fd: int, disk: Disk) -> None:
        self.directory = directory
        self._state = state
        self._lock_fd = lock_fd
        self._disk = disk
        self._mutex = threading.Lock()
        self.reserve = Reserve(directory, disk)

    @classmethod
    def open(cls, directory: Path, *, moved: bool = False, disk: Disk | None = None) -> Self:
        """Take the directory, make it and the identity if there is none, and count this start.

        `moved`: the directory was moved or restored on purpose, and no other copy runs. Raises WalLocked, WalCopied,
        WalCorrupt, WalFull, WalBroken.
        """
        disk = disk or OsDisk()
        try:
            make_directory(disk, directory)
            lock_fd = _lock(directory)
            try:
                state = _read(directory, moved)
                if state.start_count >= START_MAX:
                    raise WalError(f"{directory}: started {START_MAX} times; take a new WAL directory")
                identity = cls(directory, state, lock_fd, disk)
                identity.reserve.with_room(lambda: identity._change(start_count=state.start_count + 1))
            except BaseException:
                os.close(lock_fd)
                raise
        except OSError as error:
            raise refusal(error, f"cannot open {directory}") from error
        return identity

    @property
    def uuid(self) -> uuid.UUID:
        return self._state.uuid

    @property
    def node(self) -> int | None:
        """0 to 1023; None until it is registered."""
        return self._state.node

    @property
    def start_count(self) -> int:
        return self._state.start_count

    @property
    def id_floor_ms(self) -> int:
        """No id was ever made for this millisecond (since the epoch of ids) or a later one, unless reserved by this
        process.
        """
        return self._state.id_floor_ms

    def shard_directory(self, shard: int) -> Path:
        return self.directory / f"shard-{shard}"

    def set_node(self, node: int) -> None:
        """Keep the number this identity was given. Raises ValueError when it has another one, or none such exists."""
        if not 0 <= node < NODES:
            raise ValueError(f"node number {node}: 0 to {NODES - 1}")
        if self.node not in (None, node):
            raise ValueError(f"{self.directory} has node number {self.node} for good, not {node}")
        if self.node is None:
            self._change(node=node)

    def begin_after(self, sequence: int, id_floor_ms: int) -> None:
        """Others may have used this number before, or this directory was restored from an older copy: begin after what
        they used.

        Raises WalFull, WalBroken.
        """
        started = (sequence >> COUNTER_BITS) + 1
        if started > self.start_count:
            self._change(start_count=started)
        self.reserve_ids(id_floor_ms)

    def reserve_ids(self, until_ms: int) -> None:
        """Raise the floor: ids below `until_ms` may be made once this returns. Raises WalFull, WalBroken."""
        if until_ms > self.id_floor_ms:
            self._change(id_floor_ms=until_ms)

    def close(self) -> None:
        """Let the directory go. A second call does nothing."""
        with self._mutex:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def _change(self, **fields: int) -> None:
        with self._mutex:
            state = msgspec.structs.replace(self._state, **fields)
            state.id_floor_ms = max(state.id_floor_ms, self._state.id_floor_ms)  # two threads may reserve at once
            try:
                self._disk.close(publish(self._disk, self.directory / FILE, msgspec.json.format(msgspec.json.encode(state)) + b"\n"))
            except OSError as error:
                raise refusal(error, f"cannot write {self.directory / FILE}") from error
            self._state = state


def _lock(directory: Path) -> int:
    """Returns the descriptor that holds the lock; the file names the process, for people."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise WalLocked(f"{directory} is in use by process {pid}; one WAL directory serves one broker") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _read(directory: Path, moved: bool) -> State:
    path = directory / FILE
    place = {"device": (at := directory.stat()).st_dev, "inode": at.st_ino, "filesystem": os.statvfs(directory).f_fsid}
    state = _decode(directory)
    if state is None:
        if any(directory.glob("shard-*/*.wal")):
            raise WalCorrupt(path, 0, "missing, but logs are here; restore it from where they came")
        return State(uuid=uuid.uuid4(), **place)
    if not moved and not _same_place(state, place):
        raise WalCopied(
            f"{directory} is not the directory broker {state.uuid} was made in. If it is a copy, give this broker an empty WAL "
            "directory. If it was moved or restored, and no other copy runs, start once with MQUEUE_WAL_MOVED=1"
        )
    return msgspec.structs.replace(state, **place)


def _decode(directory: Path) -> State | None:
    path = directory / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        if (directory / RETIRED).exists():
            raise WalRetired(f"{directory} was retired: its node number is free. Give this broker an empty WAL directory") from None
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WalCorrupt(path, 0, f"cannot be read: {error}") from error


def _same_place(state: State, place: dict[str, int]) -> bool:
    same_filesystem = state.filesystem == place["filesystem"] != 0
    return state.inode == place["inode"] and (state.device == place["device"] or same_filesystem)
