"""A segment is one file of a log: a header, then frames. Its name is `%016x.wal`, by a number that grows by one.

    header = "MQWAL\\0" | version u16 | shard u32 | identity 16 bytes | first u64 | checksum u32; little-endian

`first`: the greatest sequence in the files before it, so no record here has a lower one. The checksum, CRC-32C of the
36 bytes before it, seeds that of every frame. A segment appears under its name whole and durable (`disk.publish`): one
without a header was never used.
"""

import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import google_crc32c

from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.wal.disk import Disk, never_full, publish, write_all
from mqueue.broker.wal.errors import WalCorrupt, WalNewer
from mqueue.broker.wal.frame import PREFIX_SIZE, decode, frame_size

MAGIC = b"MQWAL\0"
VERSION = 2  # 2: a message may have a unique key (mqueue/broker/format/record.py)
SEGMENT_MAX = 64 * 1024 * 1024  # bytes; a segment ends with the record that exceeds it
_FIELDS = struct.Struct("<6sHI16sQ")
_CHECKSUM = struct.Struct("<I")
HEADER_SIZE = _FIELDS.size + _CHECKSUM.size
_NAME = re.compile(r"[0-9a-f]{16}\.wal")
_READ_SIZE = 1024 * 1024


@dataclass(frozen=True)
class Header:
    shard: int
    identity: uuid.UUID
    first: int
    version: int = VERSION

    def encode(self) -> bytes:
        return self._fields + _CHECKSUM.pack(self.seed)

    @cached_property
    def seed(self) -> int:
        return int(google_crc32c.value(self._fields))

    @property
    def _fields(self) -> bytes:
        return _FIELDS.pack(MAGIC, self.version, self.shard, self.identity.bytes, self.first)

    @classmethod
    def decode(cls, data: bytes, path: Path) -> "Header":
        """From the first HEADER_SIZE bytes of a file. Raises WalCorrupt."""
        if len(data) < HEADER_SIZE:
            raise WalCorrupt(path, len(data), "the header is incomplete")
        magic, version, shard, identity, first = _FIELDS.unpack_from(data)
        if magic != MAGIC:
            raise WalCorrupt(path, 0, "not a segment: wrong magic")
        if _CHECKSUM.unpack_from(data, _FIELDS.size)[0] != google_crc32c.value(data[: _FIELDS.size]):
            raise WalCorrupt(path, 0, "the header's checksum is wrong")
        if version > VERSION:
            raise WalNewer(path, len(MAGIC), f"format version {version}; this broker reads versions up to {VERSION}")
        return cls(shard, uuid.UUID(bytes=identity), first, version)


def name(number: int) -> str:
    return f"{number:016x}.wal"


def numbers(directory: Path) -> list[int]:
    """Returns the segments of a directory, in order."""
    return sorted(int(path.stem, 16) for path in directory.iterdir() if _NAME.fullmatch(path.name))


@dataclass(slots=True)
class Segment:
    """What is known of a file: its first `size` bytes are final, `last` is the greatest sequence in it or before it."""

    path: Path
    number: int
    header: Header
    size: int
    last: int
    flushed_at: float | None = None  # monotonic seconds; when all of it was first seen flushed

    def read(self, start: int, end: int) -> Iterator[LogRecord]:
        """Each record of bytes [start, end), which lie on frame borders. Raises WalCorrupt, OSError."""
        with self.path.open("rb", buffering=_READ_SIZE) as file:
            file.seek(start)
            offset = start
            while offset < end:
                prefix = file.read(PREFIX_SIZE)
                size = frame_size(prefix)
                frame = size and decode(prefix + file.read(size - PREFIX_SIZE), 0, self.header.seed)
                if not frame:
                    raise WalCorrupt(self.path, offset, "the record no longer reads as it was written")
                offset += frame.end
                yield frame.record


class Writer:
    """The open end of the active segment. Not locked: the log does that."""

    def __init__(self, disk: Disk, fd: int, segment: Segment) -> None:
        self.segment = segment
        self._disk = disk
        self._fd = fd

    @classmethod
    def create(cls, disk: Disk, path: Path, header: Header, frames: bytes, last: int) -> "Writer":
        """Makes a new file with these frames in it, in place of any of that name; all of it is durable."""
        data = header.encode() + frames
        segment = Segment(path, int(path.stem, 16), header, len(data), last)
        return cls(disk, publish(disk, path, data), segment)

    @classmethod
    def overwrite(cls, disk: Disk, path: Path, header: Header, frames: bytes, last: int) -> "Writer":
        """Does as `create` where the disk has no room for a second copy: the same bytes are written over themselves,
        what follows them is cut off.

        A crash meanwhile leaves the file as it was, or cut. Raises OSError: EIO once something was written.
        """
        data = header.encode() + frames
        fd = disk.open(path)
        try:
            with never_full("overwrite"):
                write_all(disk, fd, data)
                disk.truncate(fd, len(data))
                disk.fsync(fd)
        finally:
            disk.close(fd)
        return cls(disk, disk.open(path, append=True), Segment(path, int(path.stem, 16), header, len(data), last))

    def append(self, frame: bytes, sequence: int) -> None:
        """Writes all or nothing. Raises the OSError of the write; EIO when the part that was written cannot be cut
        away.
        """
        try:
            write_all(self._disk, self._fd, frame)
        except OSError:
            with never_full("truncate"):
                self._disk.truncate(self._fd, self.segment.size)
            raise
        self.segment.size += len(frame)
        self.segment.last = sequence

    def sync(self) -> None:
        self._disk.fdatasync(self._fd)

    def close(self) -> None:
        self._disk.close(self._fd)
