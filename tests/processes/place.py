"""A folder with a module of tasks, `e2e_tasks`, and workers that run them as processes of their own.

The tasks may say what they do: `from e2e_notes import note`.
"""

import subprocess
import sys
from pathlib import Path

from .broker import Broker

STOP_S = 20.0
NOTES = """
import os

OUT = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(text: str) -> None:
    os.write(OUT, f"{text}\\n".encode())
"""


class Worker(subprocess.Popen[bytes]):
    """Killed at the end of its `with`."""

    def stop(self, seconds: float = STOP_S) -> int:
        """SIGTERM; its exit code."""
        self.terminate()
        return self.wait(seconds)

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.wait()


class Place:
    """`lines`: what the tasks noted, in the file that OUT names; `log`: what the workers logged, in JSON lines."""

    def __init__(self, folder: Path, broker: Broker, tasks: str) -> None:
        (folder / "e2e_notes.py").write_text(NOTES)
        (folder / "e2e_tasks.py").write_text(tasks)
        self._folder, self._out, self._log = folder, folder / "out", folder / "worker.log"
        self._env = broker.environment(
            {"MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token, "OUT": str(self._out), "PYTHONPATH": str(folder)}
        )

    def python(self, code: str) -> None:
        subprocess.run([sys.executable, "-c", code], cwd=self._folder, env=self._env, check=True, timeout=60)

    def worker(self, *options: str) -> Worker:
        command = [sys.executable, "-m", "mqueue.cli", "worker", "e2e_tasks", *options]
        with self._log.open("ab") as log:
            return Worker(command, cwd=self._folder, env=self._env, stdout=log, stderr=log)

    def lines(self) -> list[str]:
        return self._out.read_text().splitlines() if self._out.exists() else []

    def log(self) -> str:
        return self._log.read_text()
