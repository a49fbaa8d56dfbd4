"""It tells when Python files below a folder change, for `mqueue worker --reload`: by watchfiles where it is installed,
else by looking.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import structlog

LOOK_S = 0.5
FILES_MAX = 10_000
SKIPPED = {"__pycache__", "node_modules", "site-packages"}

log = structlog.get_logger("mqueue.worker")
State = dict[str, tuple[int, int]]  # path → mtime in ns, size


def changes(folder: Path) -> AsyncIterator[object]:
    """Yields after each change."""
    return _watched(folder) if find_spec("watchfiles") is not None else looked(folder)


async def _watched(folder: Path) -> AsyncIterator[object]:
    from watchfiles import PythonFilter, awatch

    async for found in awatch(folder, watch_filter=PythonFilter()):
        yield found


async def looked(folder: Path) -> AsyncIterator[object]:
    """Yields after each change that a look at all files shows."""
    before = await asyncio.to_thread(state, folder)
    if len(before) >= FILES_MAX:
        log.warning("too many files to watch, others are left out: watchfiles can do better", files=FILES_MAX)
    while True:
        await asyncio.sleep(LOOK_S)
        now = await asyncio.to_thread(state, folder)
        if now != before:
            yield now
        before = now


def state(folder: Path) -> State:
    """Notes its Python files, FILES_MAX at most."""
    found: State = {}
    for path in _files(folder):
        try:
            stat = os.stat(path)
        except OSError:  # gone meanwhile
            continue
        found[path] = stat.st_mtime_ns, stat.st_size
        if len(found) >= FILES_MAX:
            break
    return found


def _files(folder: Path) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED and not Path(here, f, "pyvenv.cfg").exists())
        yield from (os.path.join(here, name) for name in sorted(names) if name.endswith(".py"))
