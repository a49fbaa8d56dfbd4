"""A second broker on this machine finds here what it needs to know of the stores that another one started, and a folder
of its own.
"""

import fcntl
import os
from pathlib import Path
from typing import Any

from mqueue import paths
from mqueue.broker.embedded.ground import EmbeddedError
from mqueue.broker.embedded.stores import store_urls

JOINED_MAX = 64


def join(data_dir: Path) -> dict[str, Any]:
    """Returns the settings, by field name, of a broker that joins the one running on `data_dir`, but for the secret
    (`kept_secret`). Raises EmbeddedError, PathError.
    """
    data_dir = data_dir.expanduser().absolute()
    urls = store_urls(data_dir)
    return {
        "database_urls": urls.database_urls,
        "redis_addrs": urls.redis_addrs,
        "redis_password": urls.redis_password,
        "data_dir": _free_folder(data_dir / "joined"),
        "port": 0,
        "metrics_port": 0,
    }


def kept_secret(data_dir: Path) -> str | None:
    """Returns the secret of the broker on `data_dir`; None where it was given one by JWT_SECRET, and keeps none."""
    return paths.read_jwt_secret(data_dir.expanduser().absolute())


def _free_folder(folder: Path) -> Path:
    """Returns the first folder whose log no broker uses: so one that comes again finds its own."""
    for number in range(1, JOINED_MAX + 1):
        free = folder / str(number)
        if not _used(free / "wal" / "lock") and not (free / "wal" / "retired.json").exists():
            return free
    raise EmbeddedError(f"{JOINED_MAX} brokers have joined already: {folder}")


def _used(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
