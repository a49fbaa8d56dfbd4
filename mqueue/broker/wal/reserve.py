"""The reserve is some of the volume that the log may not use, kept so that a start can finish on a full one.

A start needs a little room: the identity is written anew, a torn tail is put aside. Where there is none the reserve is
given up for it; what is left of it is taken back when the logs are open, and the rest by itself when the volume has
room again.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import structlog

from mqueue.broker.wal.disk import Disk
from mqueue.broker.wal.errors import WalFull, is_full

FILE = "reserve"
SIZE = 4 * 1024 * 1024  # bytes
LEAST = 64 * 1024  # bytes; less helps no start

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Reserve:
    """The reserve of a directory. Methods block on the disk; one thread at a time may call them."""

    def __init__(self, directory: Path, disk: Disk, size: int = SIZE) -> None:
        self._path = directory / FILE
        self._disk = disk
        self._size = size
        self._spent = False

    @property
    def bytes(self) -> int:
        """Returns what is reserved, really allocated."""
        try:
            return self._path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def with_room(self, start: Callable[[], T]) -> T:
        """Returns what `start` returns; where it raises WalFull, it has another try with the reserve given up."""
        try:
            return start()
        except WalFull:
            if not self._give_up():
                raise
        return start()

    def keep(self) -> bool:
        """Makes it whole where that leaves the log as much again; returns True when it is. After a start that needed
        it, it is made of what is there.
        """
        try:
            held, volume = self.bytes, os.statvfs(self._path.parent)
        except OSError:
            return False
        if held >= self._size:
            return True
        room = volume.f_bavail * volume.f_frsize
        size = self._size if room >= 2 * self._size else min(self._size, room - LEAST) if self._spent else 0
        self._spent = False
        return size >= LEAST and size > held and self._take(size) and size == self._size

    def _take(self, size: int) -> bool:
        try:
            fd = self._disk.open(self._path) if self._path.exists() else self._disk.create(self._path)
            try:
                self._disk.allocate(fd, size)
            finally:
                self._disk.close(fd)
        except OSError as error:
            if not is_full(error):  # a quota, say, is no news
                log.warning("wal.no_reserve", file=str(self._path), error=str(error))
            with suppress(OSError):
                self._path.unlink(missing_ok=True)  # it may hold all the room there was
            return False
        return True

    def _give_up(self) -> bool:
        """Gives it up. Returns False where there was none."""
        if not self._path.exists():
            return False
        log.warning("wal.reserve_given_up", file=str(self._path), bytes=self.bytes)
        self._disk.unlink(self._path)
        self._disk.sync_directory(self._path.parent)
        self._spent = True
        return True
