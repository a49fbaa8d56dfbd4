"""The broker of a test run ends with the run, also where that is killed and can end nothing: otherwise broker,
PostgreSQL and Valkey would live on.

A process of its own holds one end of a pipe. When nobody holds the other end any more, the run is over: the process
stops the broker, if there still is one, and removes its folder. This file runs by itself, with nothing but the standard
library. It needs /proc.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_S = 35.0  # a little more than a broker allows itself
LOOK_S = 0.1


@contextmanager
def leash(folder: Path) -> Iterator[None]:
    """It is on brokers whose data is below `folder`, from before they are started."""
    # A session of its own: a Ctrl-C is for the run, which then stops its broker itself.
    command = [sys.executable, "-I", __file__, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True):
        yield  # the end closes the pipe, and waits


def brokers(folder: str) -> list[int]:
    """Returns the pids of brokers that run with their data below it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if b"mqueue.cli" in words and any(word.startswith(os.fsencode(folder) + b"/") for word in words):
                found.append(int(entry.parent.name))
    return found


def main(folder: str) -> None:
    sys.stdin.buffer.read()
    for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 1.0)):
        for pid in brokers(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + patience
        while brokers(folder) and time.monotonic() < until:
            time.sleep(LOOK_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
