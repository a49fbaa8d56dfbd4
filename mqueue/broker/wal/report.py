"""`mqueue wal inspect` and `mqueue wal verify` tell what a broker's directory holds, as lines for people. Both only
read; a broker may run.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mqueue.broker.wal.identity import look
from mqueue.broker.wal.survey import Damage, Part, shards, survey


def inspect_lines(directory: Path) -> Iterator[str]:
    """Tells whose it is, then per shard its files and records. Raises WalCorrupt (no identity), WalNewer, OSError."""
    state = look(directory)
    yield f"identity     {state.uuid}"
    yield f"node         {'none yet' if state.node is None else state.node}"
    yield f"starts       {state.start_count}"
    yield f"in use       {'yes' if in_use(directory) else 'no'}"
    for shard, path in shards(directory).items():
        yield f"shard {shard}"
        kinds: Counter[str] = Counter()
        for part in survey(path, shard, state.uuid):
            kinds += part.kinds
            yield from _file_lines(part)
        yield f"  {_counted(kinds)}"


def _file_lines(part: Part) -> Iterator[str]:
    span = f"sequence {part.records[0].sequence} to {part.records[-1].sequence}" if part.records else f"after sequence {part.first}"
    torn = f", {part.torn} bytes at the end are no whole record" if part.torn else ""
    yield f"  {part.path.name}  {len(part.records)} records, {part.size} bytes, {span}{torn}"
    for damage in part.damages:
        yield f"  damaged at byte {damage.offset}: {damage.reason}"


def _counted(kinds: "Counter[str]") -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items())) or "no records"


def verify(directory: Path) -> tuple[list[str], bool]:
    """Returns a line per shard, or per damage of it; and whether all is sound: then a broker starts on it. Raises as
    `inspect_lines`.
    """
    state = look(directory)
    lines: list[str] = []
    sound = True
    for shard, path in shards(directory).items():
        damages: list[Damage] = []
        records = torn = 0
        for part in survey(path, shard, state.uuid):
            damages += part.damages
            records += len(part.records)
            torn = part.torn
        lines += [f"shard {shard}: {damage}" for damage in damages]
        sound = sound and not damages
        if not damages:
            lines.append(f"shard {shard}: ok, {records} records" + (f"; {_torn(torn, directory)}" if torn else ""))
    return lines or ["no log yet"], sound


def _torn(size: int, directory: Path) -> str:
    why = "being written" if in_use(directory) else "cut at the next start, never acknowledged"
    return f"{size} bytes at the end are no whole record ({why})"


def in_use(directory: Path) -> bool:
    """Does a process hold the directory's lock?"""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
