"""A broker keeps its things in a data dir, and leaves something there for workers and clients on the same machine.

    <data dir>/            0700; as root 0711, so that PostgreSQL's account can reach its own folder
      broker.json   0600   where the running broker answers, and a token for it
      jwt-secret    0600   made once when JWT_SECRET is not set
      slot-map.json 0600   a copy of which shard has which topics, for a start without the first one
      lock                 held by the running broker
      wal/                 the write-ahead log
      pg/, valkey/, log/   the embedded stores (mqueue.broker.embedded)

Nothing outside the data dir is ever changed.
"""

import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from mqueue.errors import MQueueError

ROOT_DATA_DIR = Path("/var/lib/mqueue")
ENDPOINT_FILE = "broker.json"
SECRET_FILE = "jwt-secret"


class PathError(MQueueError):
    """A folder or file of the data dir cannot be used; `detail` names it and says what to do."""

    code = "data-dir"


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    token: str | None = None


def default_data_dir() -> Path:
    """Returns `MQUEUE_DATA_DIR`, else /var/lib/mqueue as root, else the user's own data folder."""
    if named := os.environ.get("MQUEUE_DATA_DIR"):
        return Path(named).expanduser().absolute()
    return ROOT_DATA_DIR if os.geteuid() == 0 else Path(platformdirs.user_data_dir("mqueue"))


def make_data_dir(path: Path) -> Path:
    """Make `path` if need be and return it resolved. Raises PathError where others may write to it.

    A folder that already holds something keeps its mode: it might be somebody's /tmp.
    """
    path = path.expanduser().absolute()
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        path = path.resolve(strict=True)
        status = path.stat()
        if status.st_uid == os.geteuid() and not any(path.iterdir()):
            path.chmod(mode)
            status = path.stat()
    except OSError as error:
        raise PathError(f"data dir {path}: {error.strerror}") from error
    if status.st_mode & 0o022:
        raise PathError(f"data dir {path} can be written by others: choose a folder of your own (--data-dir), or chmod go-w {path}")
    return path


def write_private(path: Path, content: str) -> None:
    """Replace `path` by `content` in one step, durably, readable by its owner only."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power loss."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_endpoint(data_dir: Path, url: str, token: str | None = None) -> None:
    """Leave `url` and `token` for workers and clients of the same user on this machine."""
    content = {"url": url} if token is None else {"url": url, "token": token}
    write_private(data_dir / ENDPOINT_FILE, json.dumps(content) + "\n")


def read_endpoint(data_dir: Path | None = None) -> Endpoint | None:
    """Returns what a broker with this data dir (None: the default one) left; None where there is nothing to read."""
    try:
        content = json.loads(((data_dir or default_data_dir()) / ENDPOINT_FILE).read_text())
        return Endpoint(content["url"], content.get("token"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_endpoint(data_dir: Path) -> None:
    with suppress(OSError):
        (data_dir / ENDPOINT_FILE).unlink()


def read_jwt_secret(data_dir: Path) -> str | None:
    """Returns the secret kept in the data dir, or None. Raises PathError where it is there but cannot be read."""
    path = data_dir / SECRET_FILE
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PathError(f"{path}: {error.strerror}: run this as the user that runs the broker, or set JWT_SECRET") from error


def keep_jwt_secret(data_dir: Path) -> str:
    """Returns the secret kept in the data dir, and makes it at the first call."""
    data_dir = make_data_dir(data_dir)
    if (kept := read_jwt_secret(data_dir)) is None:
        kept = secrets.token_urlsafe(48)
        write_private(data_dir / SECRET_FILE, kept + "\n")
    return kept
