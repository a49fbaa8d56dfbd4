"""A log can fail in these ways, and each says what the process should do.

WalError
├── WalFull      no room on the disk; nothing was kept of the record, the log is usable
├── WalBroken    a write or fsync failed: what is durable is unknown; refuses everything, end the process (74)
├── WalCorrupt   what is on disk is not what was written; nothing was deleted, do not start (65)
│   └── WalNewer a later version wrote it (65)
├── WalLocked    another process has this directory (75)
├── WalRetired   its node number was given back: no broker may start on it (78)
└── WalCopied    this directory is not where it was made: maybe a copy of one in use (78)
"""

import errno
from pathlib import Path
from typing import ClassVar

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class WalError(Exception):
    """A log has failed. `exit_code`: what the process ends with, after sysexits.h."""

    exit_code: ClassVar[int] = 70


class WalFull(WalError):
    exit_code = 75


class WalBroken(WalError):
    exit_code = 74


class WalCorrupt(WalError):
    exit_code = 65

    def __init__(self, file: Path, offset: int, reason: str) -> None:
        super().__init__(f"{file}: at byte {offset}: {reason}")
        self.file, self.offset, self.reason = file, offset, reason


class WalNewer(WalCorrupt):
    """Nothing is damaged: this version must not judge it."""


class WalLocked(WalError):
    exit_code = 75


class WalRetired(WalError):
    exit_code = 78


class WalCopied(WalError):
    exit_code = 78


def is_full(error: OSError) -> bool:
    return error.errno in _FULL


def refusal(error: OSError, what: str) -> WalError:
    """Returns the WalError for a failed write: WalFull for want of room, else WalBroken."""
    return (WalFull if is_full(error) else WalBroken)(f"{what}: {error}")
