"""A log is read as a crash left it and judged (`inspect`, changes nothing), then made fit for appending (`mend`).

Only the last segment may end in a torn record: a segment is made durable before the next one appears, so a bad end in
an earlier one is damage. So is a missing number: segments go from the front, one by one.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.wal.disk import TMP, Disk, publish
from mqueue.broker.wal.errors import WalCorrupt, is_full
from mqueue.broker.wal.frame import End, Scan
from mqueue.broker.wal.segment import HEADER_SIZE, Header, Segment, Writer, name, numbers

TORN_MAX = 16  # torn tails kept aside per shard

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What a log holds. `sealed`: every segment but the last. Of the last: `frames` good bytes after its header, `torn`
    the bytes behind them.

    `segment` is None for a log without any; a last file too short for a header has a fresh one and is torn as a whole.
    """

    sealed: list[Segment]
    segment: Segment | None = None
    frames: bytes = b""
    torn: bytes = b""

    @property
    def last(self) -> int:
        """Returns the greatest sequence, also of segments already removed; 0 if there never was one."""
        return self.segment.last if self.segment else 0

    def records(self, after: int) -> Iterator[LogRecord]:
        """Yields every record of a sequence above `after`, in order. Raises WalCorrupt, OSError."""
        for segment in self.sealed:
            if segment.last > after:
                yield from (r for r in segment.read(HEADER_SIZE, segment.size) if r.sequence > after)
        if self.segment:
            for frame in Scan(self.frames, 0, self.segment.header.seed):
                if frame.record.sequence > after:
                    yield frame.record


def inspect(directory: Path, shard: int, identity: uuid.UUID) -> Found:
    """Read all segments, one in memory at a time. Raises WalCorrupt, OSError."""
    order = numbers(directory)
    sealed: list[Segment] = []
    before: Segment | None = None
    for number in order[:-1]:
        segment, data = _scan(directory, number, shard, identity, before)
        if segment.size < len(data):
            raise WalCorrupt(segment.path, segment.size, "a torn record, but this is not the last segment")
        sealed.append(segment)
        before = segment
    if not order:
        return Found(sealed)
    path = directory / name(order[-1])
    if path.stat().st_size < HEADER_SIZE:
        first = before.last if before else 0
        return Found(sealed, Segment(path, order[-1], Header(shard, identity, first), HEADER_SIZE, first), torn=path.read_bytes())
    segment, data = _scan(directory, order[-1], shard, identity, before)
    return Found(sealed, segment, data[HEADER_SIZE : segment.size], data[segment.size :])


def _scan(directory: Path, number: int, shard: int, identity: uuid.UUID, before: Segment | None) -> tuple[Segment, bytes]:
    """Returns the segment as far as it reads, and all its bytes."""
    path = directory / name(number)
    if before and number != before.number + 1:
        raise WalCorrupt(directory / name(before.number + 1), 0, f"missing, but {path.name} is here")
    data = path.read_bytes()
    header = Header.decode(data[:HEADER_SIZE], path)
    if header.identity != identity:
        raise WalCorrupt(path, 0, f"belongs to broker {header.identity}, not to {identity}")
    if header.shard != shard:
        raise WalCorrupt(path, 0, f"belongs to shard {header.shard}, not to {shard}")
    if before and header.first != before.last:
        raise WalCorrupt(path, 0, f"follows sequence {header.first}, but {before.path.name} ends with {before.last}")
    scan = Scan(data, HEADER_SIZE, header.seed, header.first)
    for _ in scan:
        pass
    if scan.end is End.CORRUPT:
        raise WalCorrupt(path, scan.offset, scan.reason)
    return Segment(path, number, header, scan.offset, scan.sequence), data


def mend(disk: Disk, directory: Path, found: Found, fresh: Header) -> Writer:
    """Cut the torn tail, a copy kept, and write the last segment anew; or begin a new log. All durable on return.

    Each step can be repeated: a crash on the way leaves the old segment or the new one. Where there is no room for a
    second copy, it is written over itself: only the part of a torn tail still needs some.
    """
    for left in directory.glob("*" + TMP):
        disk.unlink(left)
    segment = found.segment
    if segment is None:
        return Writer.create(disk, directory / name(1), fresh, b"", fresh.first)
    if found.torn:
        _set_aside(disk, segment, found.torn)
    try:
        return Writer.create(disk, segment.path, segment.header, found.frames, segment.last)
    except OSError as error:
        if not is_full(error):
            raise
    log.warning("wal.written_over_itself", file=str(segment.path), bytes=len(found.frames))
    return Writer.overwrite(disk, segment.path, segment.header, found.frames, segment.last)


def _set_aside(disk: Disk, segment: Segment, torn: bytes) -> None:
    """Keep what is about to be cut as `<segment>.torn-<n>`; of such files the newest TORN_MAX stay."""
    kept = sorted(segment.path.parent.glob("*.torn-[0-9][0-9][0-9][0-9]"))
    latest = max((int(path.name[-4:]) for path in kept if path.name.startswith(segment.path.name)), default=0)
    path = segment.path.with_name(f"{segment.path.name}.torn-{latest % 9999 + 1:04d}")
    disk.close(publish(disk, path, torn))
    log.warning("wal.torn_tail_cut", file=str(segment.path), offset=segment.size, bytes=len(torn), kept=path.name)
    for old in kept[: max(0, len(kept) + 1 - TORN_MAX)]:
        disk.unlink(old)
