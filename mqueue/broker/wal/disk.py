"""Few calls change a disk, and all are here: everything durable goes through them, so that a test can fail or stop at
each of them.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mqueue.broker.failpoints import hit

TMP = ".tmp"


class Disk(Protocol):
    """The calls that change a disk. All may raise OSError."""

    def create(self, path: Path) -> int:
        """Makes an empty file, readable by its owner only; returns a descriptor that appends."""
        ...

    def open(self, path: Path, *, append: bool = False) -> int:
        """Opens a file that is there, for writing: from its beginning, or at its end."""
        ...

    def allocate(self, fd: int, size: int) -> None:
        """Give a file `size` bytes of the disk for good."""
        ...

    def write(self, fd: int, data: memoryview) -> int:
        """Returns the bytes written: maybe fewer than given."""
        ...

    def truncate(self, fd: int, size: int) -> None: ...

    def fdatasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...

    def close(self, fd: int) -> None: ...

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None: ...


class OsDisk:
    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def open(self, path: Path, *, append: bool = False) -> int:
        return os.open(path, os.O_WRONLY | (os.O_APPEND if append else 0))

    def allocate(self, fd: int, size: int) -> None:
        os.posix_fallocate(fd, 0, size)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(disk: Disk, fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = disk.write(fd, view)
        if written <= 0:
            raise OSError(errno.EIO, "write made no progress")
        view = view[written:]


@contextmanager
def never_full(what: str) -> Iterator[None]:
    """Turn any OSError into EIO: past this point even a disk without room has left something behind."""
    try:
        yield
    except OSError as error:
        raise OSError(errno.EIO, f"{what}: {error}") from error


def publish(disk: Disk, path: Path, data: bytes) -> int:
    """Put a file at `path`, whole or not at all, over any that stood there; durable on return. Returns its
    descriptor.
    """
    tmp = path.with_name(path.name + TMP)
    fd = disk.create(tmp)
    try:
        write_all(disk, fd, data)
        disk.fsync(fd)
        disk.rename(tmp, path)
        with never_full("directory fsync"):
            hit("wal.before_dirsync")
            disk.sync_directory(path.parent)
    except OSError:
        disk.close(fd)
        tmp.unlink(missing_ok=True)  # after the rename there is none
        raise
    return fd


def make_directory(disk: Disk, path: Path) -> None:
    """Create `path` for its owner only, if missing; durable on return."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        disk.sync_directory(directory.parent)
