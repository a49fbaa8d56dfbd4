"""A real broker process: started on free ports with a data dir of its own, stopped, killed, started again on what it
left.

Its stores outlive a `kill -9` of the broker on purpose; `close` ends them too, by the pids they left in the data dir.
"""

import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg
import redis

from tests import ROOT
from tests.waiting import TooLate, wait_until

READY = re.compile(rb"mqueue broker ready url=(\S+) metrics=(\S+)\n")
START_S = 60.0
PORTS = 12_000, 32_000
STOP_S = 35.0  # a little above what the broker allows itself
OURS = ("MQUEUE_", "DATABASE_URLS", "REDIS_", "WAL_DIR", "JWT_SECRET", "NAMESPACE_QUOTAS", "TLS_")


class Broker:
    """`url`, `metrics_url`, `token` of the running one. `env`: settings beside the defaults, by their environment
    names.

    `under`: a command that runs it in its own process. Without `own_data_dir` none is named.
    """

    def __init__(self, *args: str, env: Mapping[str, str] | None = None, under: Sequence[str] = (), own_data_dir: bool = True) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="mq-"))  # short: unix sockets
        self.home.chmod(0o711 if os.geteuid() == 0 else 0o700)  # PostgreSQL's own account must get in
        self.data_dir = self.home / "d"
        self.log = self.home / "broker.log"
        self.url = self.metrics_url = ""
        self._args = ("--data-dir", str(self.data_dir), *args) if own_data_dir else args
        self._env, self._under = dict(env or {}), under
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self, **more: str) -> None:
        """Returns when the broker says that it is ready. `more`: settings of this life only."""
        assert self._process is None
        command = [*self._under, sys.executable, "-m", "mqueue.cli", "broker", "--port", "0", "--metrics-port", "0"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._args],
                stdout=subprocess.PIPE, stderr=log, cwd=self.home, env=self.environment(self._env | more),
            )  # fmt: skip
        self.url, self.metrics_url = self._wait_ready()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end and waits; its exit code."""
        process = self._taken()
        process.send_signal(number)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the broker did not stop in {STOP_S} s:\n{self.last_words()}") from None
        if code < 0:
            raise AssertionError(f"the broker ended by signal {-code}:\n{self.last_words()}")
        return code

    def kill(self) -> None:
        """`kill -9` of the broker alone; its stores go on."""
        process = self._taken()
        process.kill()
        process.wait()

    def close(self) -> None:
        """Ends broker and stores, removes the data dir."""
        if self._process is not None:
            self.kill()
        for pid in filter(None, (self.postgres_pid(), self.valkey_pid())):
            _end(pid, str(self.data_dir))
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def _taken(self) -> "subprocess.Popen[bytes]":
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        process.stdout.close()
        return process

    def _wait_ready(self) -> tuple[str, str]:
        assert self._process is not None
        assert self._process.stdout is not None
        out, said, deadline = self._process.stdout.fileno(), b"", time.monotonic() + START_S
        poll = select.poll()
        poll.register(out, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                part = os.read(out, 4096)
                said += part
                if found := READY.search(said):
                    return found[1].decode(), found[2].decode()
                if not part:
                    break
        raise AssertionError(f"the broker is not ready: {said!r}\n{self.last_words()}")

    # -- what it left, what it shows -----------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        return str(json.loads((self.data_dir / "broker.json").read_text())["token"])

    @staticmethod
    def environment(more: Mapping[str, str]) -> dict[str, str]:
        """The present one without settings of ours, and `more`; mqueue is the one beside these tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        more = {"PYTHONPATH": "", **more}
        return kept | more | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), more["PYTHONPATH"])))}

    def database(self, shard: int = 0) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection of its own."""
        password = json.loads((self.data_dir / "credentials.json").read_text())["postgres"]
        host = str(self.data_dir / "pg")
        return psycopg.connect(host=host, user="mqueue", password=password, dbname=f"mqueue_{shard}", autocommit=True)

    def sql(self, query: str, values: Sequence[Any] = (), shard: int = 0) -> list[tuple[Any, ...]]:
        with self.database(shard) as connection:
            return connection.execute(query, values).fetchall()

    def redis(self) -> "redis.Redis":
        password = json.loads((self.data_dir / "credentials.json").read_text())["valkey"]
        return redis.Redis(unix_socket_path=str(self.data_dir / "valkey" / "sock"), password=password)

    def redis_memory(self) -> int:
        """Bytes Redis uses."""
        with self.redis() as client:
            return int(client.info("memory")["used_memory"])

    def rss(self) -> int:
        """Bytes of memory the broker's process holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as reply:
            text = reply.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))

    def postgres_pid(self) -> int | None:
        return _pid(self.data_dir / "pg" / "data" / "postmaster.pid")

    def valkey_pid(self) -> int | None:
        return _pid(self.data_dir / "valkey" / "pid")


@contextmanager
def asleep(broker: Broker) -> Iterator[None]:
    """Stopped, and awake again at the end."""
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Below those that the system gives to connections, and to whoever takes any: one would be gone before it is
    used.
    """
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(*PORTS)))
            found += {probe.getsockname()[1]} - {*found}
    return found


def _pid(file: Path) -> int | None:
    try:
        return int(file.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _end(pid: int, folder: str) -> None:
    """Ends a store at once if `pid` is still the one that works in `folder`; its data goes anyway."""
    command = _command_line(pid)
    if folder.encode() not in command:
        return
    try:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGQUIT if b"postgres" in command else signal.SIGKILL)
    except ProcessLookupError:
        return
    with suppress(TooLate):
        wait_until(lambda: not _command_line(pid), "the store has ended", 10)  # empty: a zombie that nobody has waited for


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
