"""A benchmark runs with a broker, a client and a worker. This module starts them, and reads what the broker and the
system tell of them.
"""

import json
import os
import platform
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from mqueue.client import AsyncClient
from mqueue.launch import Broker, Worker, home

ROOT = Path(__file__).parents[1]
WAIT_S = 300.0
MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Setting:
    folder: Path
    broker: Broker
    client: AsyncClient

    @contextmanager
    def worker(self, concurrency: int = 100) -> Iterator[Worker]:
        """Yields a running `mqueue worker benchmarks.tasks`; it may still be starting."""
        worker = Worker(self.broker, self.folder, "benchmarks.tasks", concurrency=concurrency, path=[ROOT])
        try:
            yield worker
        finally:
            worker.stop()

    def metric(self, name: str) -> float:
        return self.broker.metric(name)

    def redis_bytes(self) -> int:
        data_dir = self.broker.data_dir
        password = json.loads((data_dir / "credentials.json").read_text())["valkey"]
        with redis.Redis(unix_socket_path=str(data_dir / "valkey" / "sock"), password=password) as client:
            return int(client.info("memory")["used_memory"])

    def broker_bytes(self) -> int:
        return psutil.Process(self.broker.pid).memory_info().rss


@asynccontextmanager
async def setting(base: Path | None = None) -> AsyncIterator[Setting]:
    """`base` is the folder of the data while it runs; None takes a temporary one."""
    with home(base) as folder:
        broker = Broker(folder, folder / "data")
        try:
            async with AsyncClient(broker.url, broker.token) as client:
                yield Setting(folder, broker, client)
        finally:
            broker.stop()


def until(condition: Callable[[], bool], what: str, pause_s: float = 0.05) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {WAIT_S:g} s")
        time.sleep(pause_s)


def machine(base: Path) -> dict[str, str | int | float]:
    """Returns what the numbers depend on. `load` is that of the minute before: it shows whether others were at work,
    too.
    """
    return {
        "cores": os.cpu_count() or 0,
        "cpu": _cpu(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "file_system": file_system(base),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def file_system(path: Path) -> str:
    """Returns the type of the file system that `path` lies on."""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    resolved = path.resolve()
    return next((mounts[str(step)] for step in (resolved, *resolved.parents) if str(step) in mounts), "unknown")


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
