"""The write-ahead log: an enqueue is acknowledged when it is here, synced to the disk, and applied in Redis.

What happens here. A broker has one directory: its identity, and a log for each shard. A log is a row of segments; the
last one is appended to. Segments go from the front once PostgreSQL has what they hold.

Who is authoritative. The log is, for what this broker has acknowledged and PostgreSQL does not have yet. The directory
is the broker: its uuid, its node number, its count of starts. Two processes never use one directory.

What failure does. Nothing counts before its fdatasync; a failed one is never retried, the log is *broken* from then on.
Only the last segment may end in a torn record: it is cut, and a copy is kept. Anything else that does not read stops
the start, and nothing is deleted. The format: docs/wal-format.md.

Which file to open:

    log.py          ShardLog: open, append, commit, read on, remove
    segment.py      one file: header, append, read
    thread.py       the thread that a log writes and syncs in
    frame.py        one record as bytes, and how the end of a log is judged; pure
    recovery.py     reads a log as a crash left it, and makes it fit for appending
    identity.py     whose log it is: lock, uuid, node number, start count
    ids.py          message ids and sequence numbers, never used twice
    reserve.py      room on the volume that is kept for a start
    disk.py         the few calls that change a disk, and the seam where tests break them
    survey.py       reads a log to its end, whatever is wrong with it
    report.py       `mqueue wal inspect` and `mqueue wal verify`
    quarantine.py   `mqueue wal quarantine`: a damaged log is set aside
    errors.py       what can go wrong with a log, and what the process should do then
"""

from mqueue.broker.format.log_record import ENQUEUE, OUTCOME, VOID, LogRecord
from mqueue.broker.wal.errors import WalBroken, WalCopied, WalCorrupt, WalError, WalFull, WalLocked, WalRetired
from mqueue.broker.wal.identity import Identity
from mqueue.broker.wal.ids import IdSource
from mqueue.broker.wal.log import ShardLog

__all__ = [
    "ENQUEUE",
    "OUTCOME",
    "VOID",
    "IdSource",
    "Identity",
    "LogRecord",
    "ShardLog",
    "WalBroken",
    "WalCopied",
    "WalCorrupt",
    "WalError",
    "WalFull",
    "WalLocked",
    "WalRetired",
]
