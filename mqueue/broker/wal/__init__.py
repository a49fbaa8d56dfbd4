"""The write-ahead log: an enqueue is acknowledged when it is here, fsynced, and applied in Redis.

    record.py     one record as bytes, and how the end of a log is judged; pure
    segment.py    one file: header, append, read
    recovery.py   reads a log as a crash left it; changes nothing
    log.py        ShardLog: open, append, commit, read on, remove
    identity.py   whose log it is: lock, uuid, node number, start count
    ids.py        message ids and sequence numbers, never used twice
    disk.py       the few calls that change a disk, and the seam where tests break them

Rules. Nothing counts before its fdatasync; a failed one is never retried, the log is *broken* from then on. Only the
last segment may end in a torn record: it is cut, a copy kept. Anything else that does not read stops the start, and
nothing is deleted. The format: docs/wal-format.md.
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
