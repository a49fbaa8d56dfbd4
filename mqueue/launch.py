"""A broker and a worker run as processes of our own, in a folder of their own, and nobody but us ends them.

Settings that the caller's environment has for its own broker are kept from them: they use embedded stores and free
ports. They live in sessions of their own, so that a Ctrl-C reaches only us, who then stop them in order.
"""

import os
import re
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from mqueue.errors import MQueueError
from mqueue.paths import Endpoint, read_endpoint

READY = re.compile(rb"mqueue broker ready url=(\S+) metrics=(\S+)\n")
SETTINGS = ("MQUEUE_", "DATABASE_URLS", "REDIS_", "WAL_DIR", "JWT_SECRET", "NAMESPACE_QUOTAS", "TLS_")
HOME_LENGTH_MAX = 60  # bytes; the stores' sockets lie below it, and their paths are short
START_S = 60.0
BROKER_STOP_S = 35.0  # a little more than a broker allows itself
WORKER_STOP_S = 10.0
METRICS_S = 10.0  # for a page of metrics


class DemoError(MQueueError):
    """Something went wrong; `detail` says what, in one line."""

    code, title = "demo", "The demo failed"


@contextmanager
def home(base: Path | None = None) -> Iterator[Path]:
    """Yields a temporary folder (under `base`), where a broker can keep its data even as root; it
    is removed at the end.

    As root, PostgreSQL runs under another account, which must be able to enter every folder on the way.
    """
    folder = Path(tempfile.mkdtemp(prefix="mq-", dir=base or _base()))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Program:
    """`mqueue COMMAND` runs as a process with `folder` as its working directory; its log is there, too."""

    def __init__(self, command: str, options: Sequence[str], folder: Path, settings: dict[str, str], stop_s: float) -> None:
        self._command = command
        self._log = folder / f"{command}.log"
        self._stop_s = stop_s
        self._process = _spawn([sys.executable, "-m", "mqueue.cli", command, *options], folder, self._log, settings)

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises DemoError if it ended by itself."""
        if self._process.poll() is not None:
            raise DemoError(f"the {self._command} ended with exit code {self._process.returncode}: {_last_line(self._log)}")

    def stop(self) -> None:
        _end(self._process, self._stop_s)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Broker(Program):
    """A broker runs on `data_dir`, and has a `url`, a `token` and a `metrics_url`."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.data_dir = data_dir
        options = ["--port", "0", "--metrics-port", "0", "--data-dir", str(data_dir)]
        super().__init__("broker", options, folder, {}, BROKER_STOP_S)
        try:
            url, self.metrics_url = self._wait_ready()
            self._endpoint = read_endpoint(data_dir) or Endpoint(url)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        return self._endpoint.url

    @property
    def token(self) -> str | None:
        return self._endpoint.token

    def metric(self, name: str) -> float:
        """Returns the sum over all labels."""
        with urlopen(self.metrics_url, timeout=METRICS_S) as reply:
            text = reply.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def _wait_ready(self) -> tuple[str, str]:
        assert self._process.stdout is not None
        out, said, deadline = self._process.stdout.fileno(), b"", time.monotonic() + START_S
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([out], [], [], left)[0]:
                continue
            part = os.read(out, 4096)
            said += part
            if found := READY.search(said):
                return found[1].decode(), found[2].decode()
            if not part:
                self._process.wait(BROKER_STOP_S)
                self.check()
        raise DemoError(f"the broker was not ready after {START_S:g} s: {_last_line(self._log)}")


class Worker(Program):
    """`mqueue worker MODULE` runs beside `broker`."""

    def __init__(self, broker: Broker, folder: Path, module: str, *, concurrency: int, path: Sequence[Path] = ()) -> None:
        settings = {"MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token or ""}
        if path:
            settings["PYTHONPATH"] = os.pathsep.join(map(str, path))
        super().__init__("worker", [module, "--concurrency", str(concurrency), "--grace", "2s"], folder, settings, WORKER_STOP_S)


def _spawn(command: list[str], folder: Path, log: Path, settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    """The process starts in `folder`, so that it reads no `.env` of the caller's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    with log.open("ab") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=environment | settings,
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]", patience: float) -> None:
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _base() -> Path:
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/tmp")]
    for base in candidates:
        if base.is_dir() and len(os.fsencode(base)) <= HOME_LENGTH_MAX and os.access(base, os.W_OK | os.X_OK) and _open_to_all(base):
            return base
    raise DemoError(f"no temporary folder will do ({', '.join(map(str, candidates))}): name a place with --data-dir")


def _open_to_all(folder: Path) -> bool:
    """May another account pass through? This matters only to root: otherwise PostgreSQL runs under our own account."""
    return os.geteuid() != 0 or all(step.stat().st_mode & stat.S_IXOTH for step in (folder, *folder.parents))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
