"""A survey reads a log to its end whatever is wrong with it, and says what: for people, and for `quarantine.py`. It
changes nothing.

`recovery.py` stops at the first thing that a crash cannot have left; this goes on behind it. Each record still needs
its checksum and a sequence not below the one before it; so the two agree on which log is sound.
"""

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mqueue.broker.format.log_record import ENQUEUE, OUTCOME, VOID, LogRecord
from mqueue.broker.wal.errors import WalCorrupt, WalNewer
from mqueue.broker.wal.frame import End, Scan, following
from mqueue.broker.wal.segment import HEADER_SIZE, Header, name, numbers

KINDS = {ENQUEUE: "enqueue", OUTCOME: "outcome", VOID: "void"}
MENDED = ".mended"  # a whole new log about to take its place: see quarantine.py
_SHARD = re.compile(rf"shard-(\d+)(?:{re.escape(MENDED)})?")


@dataclass(slots=True)
class Damage:
    """Bytes [offset, end) of a file that are no record, or a place where records are missing. `before`, `after`: the
    sequences of the records around it (0, None: there is none). Records of these two may be among what is lost, since a
    batch has one sequence.
    """

    path: Path
    offset: int
    end: int
    reason: str
    before: int
    after: int | None = None

    def __str__(self) -> str:
        size = f" ({self.end - self.offset} bytes)" if self.end > self.offset else ""
        upto = "the end" if self.after is None else str(self.after)
        return f"{self.path}: at byte {self.offset}{size}: {self.reason}; between sequence {self.before} and {upto}"


@dataclass(slots=True)
class Part:
    """What one file holds: its records; `first`: the greatest sequence before it, as its header tells; `torn`: bytes at
    the end of a last file that are no record, as a crash leaves them; `damages`: what is wrong in it, or before it.
    """

    path: Path
    size: int
    first: int = 0
    records: list[LogRecord] = field(default_factory=list)
    torn: int = 0
    damages: list[Damage] = field(default_factory=list)

    @property
    def kinds(self) -> "Counter[str]":
        return Counter(KINDS.get(record.kind, f"kind {record.kind}") for record in self.records)


def shards(directory: Path) -> dict[int, Path]:
    """Returns the logs of a broker's directory, by shard."""
    found: dict[int, Path] = {}
    for path in sorted(directory.iterdir(), reverse=True):  # shard-1 counts more than shard-1.mended
        if path.is_dir() and (match := _SHARD.fullmatch(path.name)):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def survey(directory: Path, shard: int, identity: uuid.UUID) -> Iterator[Part]:
    """Reads each file in order, one in memory at a time; `after` of a damage is known when the next records were read.
    A file that a running broker removes meanwhile, because it is flushed, is passed by.

    Raises OSError; WalNewer for a file of a later format version, which is no damage.
    """
    order = numbers(directory)
    reader = _Reader(shard, identity)
    before: int | None = None
    for number in order:
        path = directory / name(number)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            before = None
            continue
        part = Part(path, len(data), reader.last)
        if before is not None and number > before + 1:
            reader.add(part, Damage(directory / name(before + 1), 0, 0, f"missing, but {path.name} is here", reader.last))
        reader.read(part, data, is_first=before is None, is_last=number == order[-1])
        before = number
        yield part


class _Reader:
    """`last`: the greatest sequence so far."""

    def __init__(self, shard: int, identity: uuid.UUID) -> None:
        self.last = 0
        self._shard = shard
        self._identity = identity
        self._open: list[Damage] = []  # behind which no record was found yet

    def add(self, part: Part, damage: Damage) -> None:
        part.damages.append(damage)
        self._open.append(damage)

    def read(self, part: Part, data: bytes, *, is_first: bool, is_last: bool) -> None:
        if is_last and len(data) < HEADER_SIZE:
            part.torn = len(data)
            return
        header = self._header(part, data)
        if header is None:
            return
        part.first = header.first
        if not is_first and header.first != self.last and not self._open:
            self.add(part, Damage(part.path, 0, 0, f"follows sequence {header.first}, but the records before end with {self.last}", self.last))
        self.last = max(self.last, header.first)
        offset: int | None = HEADER_SIZE
        while offset is not None:
            offset = self._run(part, data, offset, header.seed, is_last)

    def _run(self, part: Part, data: bytes, offset: int, seed: int, is_last: bool) -> int | None:
        """Reads records up to the next damage; returns where they go on behind it."""
        scan = Scan(data, offset, seed, self.last)
        records = [frame.record for frame in scan]
        if records:
            part.records += records
            for damage in self._open:
                damage.after = records[0].sequence
            self._open.clear()
        self.last = scan.sequence
        if scan.end is End.CLEAN:
            return None
        if scan.end is End.TORN and is_last:
            part.torn = len(data) - scan.offset
            return None
        torn = scan.end is End.TORN
        goes_on = None if torn else following(data, scan.offset, seed, self.last)
        reason = "a torn record, but this is not the last segment" if torn else scan.reason
        self.add(part, Damage(part.path, scan.offset, len(data) if goes_on is None else goes_on, reason, self.last))
        return goes_on

    def _header(self, part: Part, data: bytes) -> Header | None:
        """Returns its header. Where it is damaged: one under whose seed a record reads. None: there is none, or the
        file is another log's.
        """
        try:
            header = Header.decode(data[:HEADER_SIZE], part.path)
        except WalNewer:
            raise
        except WalCorrupt as error:
            self.add(part, Damage(part.path, 0, min(len(data), HEADER_SIZE), error.reason, self.last))
            guess = Header(self._shard, self._identity, self.last)
            if following(data, HEADER_SIZE - 1, guess.seed, self.last) is not None:
                return guess
            if len(data) > HEADER_SIZE:
                self.add(part, Damage(part.path, HEADER_SIZE, len(data), "nothing can be checked without the header", self.last))
            return None
        for of, held, ours in (("broker", header.identity, self._identity), ("shard", header.shard, self._shard)):
            if held != ours:
                self.add(part, Damage(part.path, 0, len(data), f"belongs to {of} {held}, not to {ours}", self.last))
                return None
        return header
