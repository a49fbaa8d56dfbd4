"""A process that a turn starts: in a session of its own, its output in a file, ended with all its children."""

import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from mqueue.launch import SETTINGS

PATIENCE_S = 5.0
LOOK_S = 0.2
QUIET = 0.1  # of one core
QUIET_MAX_S = 15.0


class Process:
    """`inside` are variables beside our own environment; what ours says of a broker is kept from it. `talks`: we read
    what it says; else that goes into the log, since a pipe that nobody reads fills up.
    """

    def __init__(self, command: Sequence[str], folder: Path, log: Path, inside: dict[str, str], *, talks: bool = True) -> None:
        self._command, self._log = command, log
        environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else errors,
                stderr=errors,
                cwd=folder,
                env=environment | inside,
                start_new_session=True,
                text=True,
            )
        self.pid = self._process.pid

    def line(self) -> str:
        """Returns the next line that it says. Raises RuntimeError if it ended instead."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError(f"{self._command[0]} … ended with {self._process.wait()}: {_last_line(self._log)}")

    def tell(self, line: str) -> None:
        stdin = self._stdin()
        stdin.write(f"{line}\n")
        stdin.flush()

    def check(self) -> None:
        """Raises RuntimeError if it ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{' '.join(self._command[-3:])} ended with {self._process.returncode}: {_last_line(self._log)}")

    def stop(self, patience_s: float = PATIENCE_S) -> None:
        children = family([self.pid])
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        for left in children:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        self._process.wait()
        self._stdin().close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin


@contextmanager
def running(
    commands: Iterable[Sequence[str]], folder: Path, log: Path, inside: dict[str, str], *, talk: bool = False
) -> Iterator[list[Process]]:
    """Yields the processes of all commands, and stops them."""
    started: list[Process] = []
    try:
        for command in commands:
            started.append(Process(command, folder, log, inside, talks=talk))
        yield started
    finally:
        for process in started:
            process.stop()


def family(pids: Iterable[int]) -> list[psutil.Process]:
    """Returns these processes and all that they started, and those started, that live."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found |= {process.pid: process for process in (root, *root.children(recursive=True))}
    return list(found.values())


def cpu_s(pids: Iterable[int]) -> float:
    """Returns the processor seconds of these processes and of all that they started, also of what has ended."""
    total = 0.0
    for process in family(pids):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])  # user, system, and both of children that have ended
    return total


def wait_quiet(pids: Sequence[int]) -> None:
    """Waits until these processes have next to nothing to do: what they put off belongs to what was before."""
    deadline, before = time.monotonic() + QUIET_MAX_S, cpu_s(pids)
    while time.monotonic() < deadline:
        time.sleep(LOOK_S)
        now = cpu_s(pids)
        if now - before < QUIET * LOOK_S:
            return
        before = now


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
