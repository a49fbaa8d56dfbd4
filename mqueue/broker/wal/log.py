"""A ShardLog is the log of one shard on this broker's disk.

`commit` makes a record durable, in the log's own thread; `append` only writes, from the event loop, in about 10 µs: it
is durable with the next commit, or once the kernel has written it. One lock orders their writes. Only the log's thread
changes the active segment, so what a commit wrote is what it syncs.
"""

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import structlog

from mqueue.broker.failpoints import hit
from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.wal.disk import Disk, OsDisk, make_directory
from mqueue.broker.wal.errors import WalBroken, WalError, WalFull, is_full, refusal
from mqueue.broker.wal.frame import encode
from mqueue.broker.wal.quarantine import finish
from mqueue.broker.wal.recovery import inspect, mend
from mqueue.broker.wal.segment import HEADER_SIZE, SEGMENT_MAX, VERSION, Header, Segment, Writer, name
from mqueue.broker.wal.thread import Thread

ROOM_MIN = 1024 * 1024  # bytes
KEEP_S = 60.0  # seconds a flushed segment stays: PostgreSQL may fail over to a copy that lags

log = structlog.get_logger(__name__)


class ShardLog:
    """`commit`, `append` and the properties are for the event loop; the other methods may block on the disk."""

    def __init__(self, directory: Path, writer: Writer, sealed: list[Segment], *, segment_max: int, keep_s: float, disk: Disk) -> None:
        self._directory = directory
        self._writer = writer
        self._sealed = sealed  # from the front; the writer's segment comes after them
        self._segment_max = segment_max
        self._keep_s = keep_s
        self._disk = disk
        self._lock = threading.Lock()
        self._thread = Thread(f"wal-{writer.segment.header.shard}")
        self._rotating = False
        self._broken: str | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        shard: int,
        identity: uuid.UUID,
        *,
        segment_max: int = SEGMENT_MAX,
        keep_s: float = KEEP_S,
        disk: Disk | None = None,
    ) -> "ShardLog":
        """Open or create the log in `directory`, the shard's own. Raises WalCorrupt (nothing was changed), WalFull,
        WalBroken.

        The last segment is always written anew: after a crash its pages may be in the cache only, and an fsync of an
        inherited file would not tell of an earlier failure. What counts from here on is durable.
        """
        disk = disk or OsDisk()
        try:
            finish(directory, disk)
            make_directory(disk, directory)
            found = inspect(directory, shard, identity)
            writer = mend(disk, directory, found, Header(shard, identity, 0))
        except OSError as error:
            raise refusal(error, f"cannot open the log in {directory}") from error
        opened = cls(directory, writer, found.sealed, segment_max=segment_max, keep_s=keep_s, disk=disk)
        if writer.segment.header.version < VERSION:  # what this broker writes an older one must not take for its own
            opened._rotate()
        return opened

    # -- writing

    async def commit(self, record: LogRecord) -> None:
        """Return once the record is durable. Cancelling stops the waiting, not the writing.

        Raises WalFull (nothing was kept of it), WalBroken, ValueError (the sequence goes back).
        """
        try:
            written = self._thread.call(self._commit, record)
        except RuntimeError as error:  # the thread takes no more work
            raise WalBroken(f"{self._directory}: closed") from error
        await written

    def append(self, record: LogRecord) -> None:
        """Write without waiting for the disk. Raises as `commit` does."""
        self._write(record)
        if self._is_long() and not self._rotating:
            self._rotating = True
            self._thread.submit(self._rotate_behind)

    def _commit(self, record: LogRecord) -> None:
        if self._is_long():
            self._rotate()
        try:
            hit("wal.before_append")
            self._write(record)
            hit("wal.before_fsync")
            self._writer.sync()
            hit("wal.after_fsync")
        except OSError as error:
            raise self._break(error, "fsync") from error

    def _write(self, record: LogRecord) -> None:
        with self._lock:
            self._check()
            segment = self._writer.segment
            if record.sequence < segment.last:
                raise ValueError(f"sequence {record.sequence} after {segment.last}")
            try:
                self._writer.append(encode(record, segment.header.seed), record.sequence)
            except OSError as error:
                raise self._refuse(error, "write") from error

    # -- segments

    def _is_long(self) -> bool:
        return self._writer.segment.size > self._segment_max

    def _rotate_behind(self) -> None:
        try:
            if self._is_long():
                self._rotate()
        except WalError as error:  # appends go on in the long segment, or are refused themselves
            log.warning("wal.rotate_failed", directory=str(self._directory), error=str(error))
        finally:
            self._rotating = False

    def _rotate(self) -> None:
        """Seal the active segment and begin the next. All of the old one is durable before the new one appears, so only
        a last segment can be torn. Most of it is synced before the lock is taken, since appends wait for that.
        """
        try:
            hit("wal.rotate")
            self._writer.sync()
            with self._lock:
                self._check()
                self._writer.sync()
                self._begin_next()
        except OSError as error:
            raise self._break(error, "rotate") from error

    def _begin_next(self) -> None:
        old = self._writer.segment
        header = Header(old.header.shard, old.header.identity, old.last)
        try:
            writer = Writer.create(self._disk, self._directory / name(old.number + 1), header, b"", old.last)
        except OSError as error:
            raise self._refuse(error, "begin a segment") from error
        self._sealed.append(old)
        self._writer, former = writer, self._writer
        former.close()

    def _check(self) -> None:
        if self._broken:
            raise WalBroken(f"{self._directory}: {self._broken}")

    def _break(self, error: OSError, what: str) -> WalError:
        """Refuses everything from here on: nothing is known to be durable."""
        self._broken = self._broken or f"{what}: {error}"
        log.error("wal.broken", directory=str(self._directory), what=what, error=str(error))
        return WalBroken(f"{self._directory}: {self._broken}")

    def _refuse(self, error: OSError, what: str) -> WalError:
        """Only refuses a write that left nothing behind, when all it lacked was room."""
        if is_full(error):
            return WalFull(f"{self._directory}: {what}: {error}")
        return self._break(error, what)

    # -- reading

    def records(self, after: int) -> Iterator[LogRecord]:
        """Yields every record of a sequence above `after`, in order, those appended meanwhile included, with a chunk in
        memory at a time.

        Raises WalCorrupt, OSError.
        """
        number = 0
        while segment := self._following(number, after):
            number, offset = segment.number, HEADER_SIZE
            while offset < (end := segment.size):  # bytes below `size` never change; more may have come since
                yield from (record for record in segment.read(offset, end) if record.sequence > after)
                offset = end

    def _following(self, number: int, after: int) -> Segment | None:
        with self._lock:
            return next((s for s in (*self._sealed, self._writer.segment) if s.number > number and s.last > after), None)

    @property
    def last_sequence(self) -> int:
        """Returns the highest in the log, also of segments already removed; 0 if there never was one."""
        return self._writer.segment.last

    # -- removing

    def remove_flushed(self, position: int, now: float) -> int:
        """Remove the segments, never the active one, of which all was flushed (≤ `position`) `keep_s` ago. Returns how
        many.

        `now`: monotonic seconds. One by one from the front, each durable, so that no gap can appear. Raises WalBroken.
        """
        with self._lock:
            self._check()
            flushed = [s for s in self._sealed if s.last <= position]
        for segment in flushed:
            if segment.flushed_at is None:
                segment.flushed_at = now
        due = [s for s in flushed if s.flushed_at is not None and now - s.flushed_at >= self._keep_s]
        for segment in due:
            try:
                hit("wal.before_remove")
                self._disk.unlink(segment.path)
                self._disk.sync_directory(self._directory)
            except OSError as error:
                raise self._break(error, f"remove {segment.path.name}") from error
            with self._lock:
                self._sealed.remove(segment)
        return len(due)

    # -- the rest

    @property
    def bytes(self) -> int:
        return sum(segment.size for segment in tuple(self._sealed)) + self._writer.segment.size

    @property
    def broken(self) -> bool:
        return self._broken is not None

    def has_room(self) -> bool:
        """Would the volume take some more?"""
        volume = os.statvfs(self._directory)
        return volume.f_bavail * volume.f_frsize >= ROOM_MIN

    @property
    def segments(self) -> int:
        return len(self._sealed) + 1

    def close(self) -> None:
        """Make all durable and close; waits for a commit under way. A second call does nothing. Raises WalBroken."""
        self._rotating = True  # no more work for the thread
        self._thread.close()
        with self._lock:
            if self._broken == "closed":
                return
            broken, self._broken = self._broken, "closed"
            try:
                if broken is None:
                    self._writer.sync()
            except OSError as error:
                raise WalBroken(f"{self._directory}: fsync: {error}") from error
            finally:
                self._writer.close()
