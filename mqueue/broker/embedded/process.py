"""A server process was started here, or taken over from a broker that was killed.

Servers outlive a killed broker, so nothing may tie them to it: their output goes to a file, not to a pipe, and a
taken-over one is known by its pid and its command line, since a pid alone may have been given to another program.
"""

import asyncio
import math
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mqueue.broker.embedded.ground import Account, EmbeddedError

LOG_MAX = 8 * 1024 * 1024  # bytes of a server's log; then it starts anew, the old part kept as .1
CHECK_S = 0.05


class Server:
    """A handle on one server: `pid`, whether it is alive, how to end it."""

    def __init__(self, pid: int, marker: str, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self._marker = marker
        self._child = child

    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return runs(self.pid, self._marker)

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def gone(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for its end."""
        for _ in range(math.ceil(timeout / CHECK_S)):
            if not self.alive():
                return True
            await asyncio.sleep(CHECK_S)
        return not self.alive()

    async def end(self, steps: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send each signal in turn and wait its seconds, until the server is gone. Raises EmbeddedError where it
        stays.
        """
        for number, seconds in steps:
            self.send(number)
            if await self.gone(seconds):
                return
        raise EmbeddedError(f"the server with pid {self.pid} does not end")


def runs(pid: int, marker: str) -> bool:
    """Is `pid` a live process with `marker` in its command line?"""
    return marker in command_line(pid)


def command_line(pid: int) -> str:
    """Returns its words joined by blanks; empty for a zombie or no process. It is readable whoever owns the process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="surrogateescape")
    return ""


def spawn(command: Sequence[str], marker: str, folder: Path, log: Path, account: Account | None = None) -> Server:
    """Start `command` in `folder`, away from the terminal, with nothing of the broker's environment (it holds
    secrets).
    """
    trim(log)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **surroundings(account),
        )
    except OSError as error:
        raise EmbeddedError(f"cannot run {command[0]}: {error.strerror}") from error
    finally:
        os.close(output)
    return Server(child.pid, marker, child)


def surroundings(account: Account | None) -> dict[str, Any]:
    """Returns arguments for subprocess: environment, umask, and the user to become."""
    common: dict[str, Any] = {"env": {"PATH": os.defpath, "LC_ALL": "C"}, "umask": 0o077}
    if account is None:
        return common
    return common | {"user": account.uid, "group": account.gid, "extra_groups": []}


def trim(log: Path) -> None:
    """Keeps `log` bounded. Its writers append, so it can be cut to nothing under them."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_MAX:
            with log.open("rb") as file:
                file.seek(-LOG_MAX, os.SEEK_END)
                log.with_name(log.name + ".1").write_bytes(file.read())
            os.truncate(log, 0)


def last_words(log: Path, since: int = 0) -> str:
    """Returns the last line of `log` written after byte `since` that tells of a failure, else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 16_384))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    failures = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line.lower()]
    return (failures or lines or [""])[-1]
