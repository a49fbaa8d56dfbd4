"""The stores stand on a locked data dir, the account that PostgreSQL runs under, and the credentials."""

import fcntl
import json
import os
import pwd
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mqueue.errors import MQueueError
from mqueue.paths import make_data_dir, write_private

LOCK_FILE = "lock"
CREDENTIALS_FILE = "credentials.json"  # {"postgres": …, "valkey": …}
ACCOUNTS = ("postgres", "nobody")  # for PostgreSQL when the broker is root, first found
SOCKET_PATH_MAX = 100  # bytes; the kernel takes 107


class EmbeddedError(MQueueError):
    """The embedded stores cannot start or go on; `detail` says why and what to do, in one line."""

    code = "embedded"


@dataclass(frozen=True, slots=True)
class Account:
    """A user to run a server as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Passwords that are made once for this data dir. They have no repr: they must not reach a log."""

    postgres: str
    valkey: str


@dataclass(frozen=True, slots=True)
class Ground:
    """A data dir that is ours while `lock` is open. `account`: None when servers run as the broker's own user."""

    folder: Path
    lock: IO[str]
    account: Account | None
    credentials: Credentials

    def subfolder(self, name: str, owner: Account | None = None) -> Path:
        """Returns `<data dir>/<name>`, 0700, owned by who uses it."""
        path = self.folder / name
        path.mkdir(mode=0o700, exist_ok=True)
        if owner is not None and path.stat().st_uid != owner.uid:
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        return path

    def release(self) -> None:
        self.lock.close()


def take(data_dir: Path) -> Ground:
    """Lock the data dir and read or make what is kept there. Raises EmbeddedError or PathError."""
    folder = make_data_dir(data_dir)
    lock = _lock(folder)
    try:
        account = _account()
        if account is not None:
            require_way(folder, account)
        return Ground(folder, lock, account, _credentials(folder))
    except BaseException:
        lock.close()
        raise


def socket_path(path: Path) -> Path:
    """Returns `path`; raises EmbeddedError where it is too long for a unix socket."""
    if len(os.fsencode(path)) >= SOCKET_PATH_MAX:
        raise EmbeddedError(f"the path {path} is too long for a unix socket ({SOCKET_PATH_MAX} bytes): choose a shorter --data-dir")
    return path


def require_way(folder: Path, account: Account) -> None:
    """Raise EmbeddedError naming the first folder on the way to `folder` that `account` may not enter."""
    for step in (*reversed(folder.parents), folder):
        if not _enterable(step.stat(), account):
            raise EmbeddedError(
                f'user "{account.name}", as whom PostgreSQL runs when the broker is root, cannot enter {step}: '
                f"choose another --data-dir, or allow it with: chmod o+x {step}"
            )


def _enterable(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _lock(folder: Path) -> IO[str]:
    file = open(os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600), "r+")  # noqa: SIM115 - stays open as long as the broker
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = file.read().strip()
        file.close()
        raise EmbeddedError(f"data dir {folder} is in use by the broker with pid {holder or 'unknown'}") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(f"PostgreSQL cannot run as root and there is no user {' or '.join(ACCOUNTS)}: run the broker as another user")


def _credentials(folder: Path) -> Credentials:
    path = folder / CREDENTIALS_FILE
    try:
        kept = json.loads(path.read_text())
        return Credentials(kept["postgres"], kept["valkey"])
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddedError(f"{path} is damaged: restore it, without it the stores in {folder} do not open") from error
    made = Credentials(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    write_private(path, json.dumps({"postgres": made.postgres, "valkey": made.valkey}) + "\n")
    return made
