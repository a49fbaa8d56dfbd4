"""A frame is one record as bytes; here is also how the end of a log is judged. This is pure: no files.

    frame   = length u32 | checksum u32 | body          little-endian
    body    = sequence u64 | epoch u32 | kind u8 | payload
    length  = bytes of the body; checksum = CRC-32C of the body, carried on from `seed`: the segment header's checksum

The seed binds a frame to its segment: bytes of an old file on a reused block, or a client's payload that looks like a
frame, do not pass.

Version rule: a kind or the layout of a payload never changes its meaning. A new kind, or a new layout, raises
`segment.VERSION`; a broker reads every version up to its own and refuses a later one, so that it never skips what it
cannot understand.
"""

import re
import struct
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import google_crc32c

from mqueue.broker.format.log_record import LogRecord

PAYLOAD_MAX = 16 * 1024 * 1024 + 64 * 1024  # bytes
SEQUENCE_MAX = 2**63 - 1  # PostgreSQL keeps positions as bigint

_PREFIX = struct.Struct("<II")
_HEAD = struct.Struct("<QIB")
PREFIX_SIZE = _PREFIX.size
FRAME_MIN = PREFIX_SIZE + _HEAD.size
_LENGTH_MAX = _HEAD.size + PAYLOAD_MAX

# Where a frame can begin: length not 0, its top byte at most 1, top bit of the sequence clear. Cheap, so a search is
# quick.
_CANDIDATE = re.compile(rb"(?s)(?=(?!\0{4})...[\0\1].{11}[\0-\x7f])")


class Frame(NamedTuple):
    """A record and where it stands: bytes [offset, end)."""

    offset: int
    end: int
    record: LogRecord


class End(Enum):
    CLEAN = "clean"
    TORN = "torn"  # the rest is no record, and no record follows
    CORRUPT = "corrupt"  # the rest is no record, but one follows; or the sequence goes back


def encode(record: LogRecord, seed: int = 0) -> bytes:
    """Makes a frame. Raises ValueError when the payload is over PAYLOAD_MAX or a number does not fit."""
    sequence, epoch, kind, payload = record
    if len(payload) > PAYLOAD_MAX:
        raise ValueError(f"a record of {len(payload)} bytes; at most {PAYLOAD_MAX}")
    if not (0 <= sequence <= SEQUENCE_MAX and 0 <= epoch < 2**32 and 0 <= kind < 2**8):
        raise ValueError(f"does not fit a record: sequence {sequence}, epoch {epoch}, kind {kind}")
    head = _HEAD.pack(sequence, epoch, kind)
    checksum = google_crc32c.extend(google_crc32c.extend(seed, head), payload)
    return b"".join((_PREFIX.pack(len(head) + len(payload), checksum), head, payload))


def decode(data: bytes, offset: int, seed: int = 0) -> Frame | None:
    """Returns the frame at `offset`, or None unless it is whole and its checksum right."""
    if offset + FRAME_MIN > len(data):
        return None
    length, checksum = _PREFIX.unpack_from(data, offset)
    end = offset + PREFIX_SIZE + length
    if not _HEAD.size <= length <= _LENGTH_MAX or end > len(data):
        return None
    body = data[offset + PREFIX_SIZE : end]
    if google_crc32c.extend(seed, body) != checksum:
        return None
    sequence, epoch, kind = _HEAD.unpack_from(body)
    return Frame(offset, end, LogRecord(sequence, epoch, kind, body[_HEAD.size :]))


def frame_size(prefix: bytes) -> int | None:
    """Returns the bytes of the frame that begins with `prefix` by its length field; None if that cannot be one."""
    length = int.from_bytes(prefix[:4], "little") if len(prefix) >= PREFIX_SIZE else 0
    return PREFIX_SIZE + length if _HEAD.size <= length <= _LENGTH_MAX else None


class Scan:
    """Iterate once for the frames of `data` from `start`; then `end` says how it ended, at `offset`, after `sequence`,
    and `reason` why.
    """

    def __init__(self, data: bytes, start: int = 0, seed: int = 0, least: int = 0) -> None:
        self.end = End.CLEAN
        self.offset = start
        self.sequence = least
        self.reason = ""
        self._data = data
        self._seed = seed

    def __iter__(self) -> Iterator[Frame]:
        while self.offset < len(self._data):
            frame = decode(self._data, self.offset, self._seed)
            if frame is None:
                return self._judge()
            if frame.record.sequence < self.sequence:
                self.end, self.reason = End.CORRUPT, f"sequence {frame.record.sequence} after {self.sequence}"
                return None
            self.offset, self.sequence = frame.end, frame.record.sequence
            yield frame

    def _judge(self) -> None:
        found = following(self._data, self.offset, self._seed, self.sequence)
        if found is None:
            self.end, self.reason = End.TORN, "no whole record, and none follows"
        else:
            self.end, self.reason = End.CORRUPT, f"no valid record, but one follows at byte {found}"


def following(data: bytes, offset: int, seed: int, least: int) -> int | None:
    """Returns the offset of a valid frame after the bad one at `offset`, of a sequence not below `least`. It looks
    first where its length says, then anywhere: the length itself may be wrong.
    """

    def valid(at: int) -> bool:
        frame = decode(data, at, seed)
        return frame is not None and frame.record.sequence >= least

    size = frame_size(data[offset : offset + PREFIX_SIZE])
    if size and valid(offset + size):
        return offset + size
    return next(filter(valid, (match.start() for match in _CANDIDATE.finditer(data, offset + 1))), None)
