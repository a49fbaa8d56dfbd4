"""`mqueue wal quarantine` sets a log with a bad record among good ones aside, and puts a new one with the good ones in
its place.

    1. write the new log into shard-<k>.fresh, all of it durable
    2. rename it to shard-<k>.mended: from here on it is whole
    3. rename shard-<k> to shard-<k>.quarantine-<n>
    4. rename shard-<k>.mended to shard-<k>

A crash before 3 leaves the old log, which still does not start; after it the new one, and whoever opens it does step 4
(`finish`). No byte of the old log is changed.
"""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.wal.disk import Disk, OsDisk, publish
from mqueue.broker.wal.frame import encode
from mqueue.broker.wal.segment import HEADER_SIZE, SEGMENT_MAX, Header, name
from mqueue.broker.wal.survey import MENDED, Damage, shards, survey

FRESH = ".fresh"
ASIDE = ".quarantine-"


@dataclass(slots=True)
class Loss:
    """What is wrong with a log: how many records read, and the damages. `torn`: bytes at its end that are no record."""

    records: int = 0
    damages: list[Damage] = field(default_factory=list)
    torn: int = 0


def damaged(directory: Path, identity: uuid.UUID) -> Iterator[tuple[int, Path, Loss]]:
    """Returns the logs of a broker's directory that are damaged: shard, place, what is wrong.
    Raises WalNewer, OSError.
    """
    for shard, path in shards(directory).items():
        loss = losses(path, shard, identity)
        if loss.damages:
            yield shard, path, loss


def losses(directory: Path, shard: int, identity: uuid.UUID) -> Loss:
    """Returns what would be lost. Raises WalNewer, OSError."""
    loss = Loss()
    for part in survey(directory, shard, identity):
        loss.records += len(part.records)
        loss.damages += part.damages
        loss.torn = part.torn
    return loss


def quarantine(directory: Path, shard: int, identity: uuid.UUID, *, segment_max: int = SEGMENT_MAX, disk: Disk | None = None) -> Path:
    """Put a log of what reads in the place of this shard's; returns where the old one is now. The broker's directory
    must be held.

    Raises WalNewer, OSError.
    """
    disk = disk or OsDisk()
    directory = directory.with_name(f"shard-{shard}")
    finish(directory, disk)
    fresh, mended = _beside(directory, FRESH), _beside(directory, MENDED)
    for left in (fresh, mended):
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        for number, (header, frames) in enumerate(_segments(directory, shard, identity, segment_max), 1):
            disk.close(publish(disk, fresh / name(number), header.encode() + frames))
    except OSError:  # no room, perhaps: leave it as it was
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    aside = _aside(directory)
    for old, new in ((fresh, mended), (directory, aside), (mended, directory)):
        disk.rename(old, new)
        disk.sync_directory(directory.parent)
    return aside


def finish(directory: Path, disk: Disk) -> None:
    """Does the last step, where a crash came before it."""
    mended = _beside(directory, MENDED)
    if not directory.exists() and mended.exists():
        disk.rename(mended, directory)
        disk.sync_directory(directory.parent)


def _segments(directory: Path, shard: int, identity: uuid.UUID, segment_max: int) -> Iterator[tuple[Header, bytes]]:
    """Returns the records that read, in new segments. One that came twice, in a block that was written at two places,
    comes once.
    """
    header: Header | None = None
    frames = bytearray()
    last = 0
    batch: list[LogRecord] = []  # of the present sequence
    for part in survey(directory, shard, identity):
        if header is None:
            header, last = Header(shard, identity, part.first), part.first
        for record in part.records:
            if record.sequence > last:
                batch.clear()
            elif record in batch:
                continue
            if len(frames) + HEADER_SIZE > segment_max:
                yield header, bytes(frames)
                header = Header(shard, identity, last)
                frames.clear()
            frames += encode(record, header.seed)
            batch.append(record)
            last = record.sequence
    yield header or Header(shard, identity, 0), bytes(frames)


def _beside(directory: Path, ending: str) -> Path:
    return directory.with_name(directory.name + ending)


def _aside(directory: Path) -> Path:
    taken = {path.name for path in directory.parent.iterdir()}
    n = 1
    while f"{directory.name}{ASIDE}{n}" in taken:
        n += 1
    return _beside(directory, f"{ASIDE}{n}")
