"""A wall clock of their own for the processes of a test, by libfaketime: an hour wrong, or made to jump while they run.

The monotonic clock stays the true one. (`time.sleep` fails in a Python that runs so: this libfaketime spoils
`clock_nanosleep`.)
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from mqueue.broker.embedded import postgres, process, valkey

HOUR_S = 3600
FOUND = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
SEEN_S = 10.0  # within which a process sees that its clock has jumped: it looks once a second


class WrongClock:
    """The clock of every process started with `env`, or by `under`."""

    def __init__(self, folder: Path, ahead_s: float = 0) -> None:
        self._file = folder / f"clock-{uuid.uuid4().hex}"
        self.ahead_s = 0.0
        self.jump_to(ahead_s)

    def jump_to(self, ahead_s: float) -> None:
        """Seconds ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+.0f}s\n")
        new.chmod(0o644)  # PostgreSQL runs under an account of its own
        new.rename(self._file)  # never half of it
        self.ahead_s = ahead_s

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(FOUND[0]), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
        }  # fmt: skip

    @property
    def under(self) -> tuple[str, ...]:
        """A command that runs another one so, in its own process."""
        return ("/usr/bin/env", *(f"{name}={value}" for name, value in self.env.items()))


@contextmanager
def of_stores(clocks: dict[str, WrongClock]) -> Iterator[None]:
    """Stores started within it have these clocks, by name: they take nothing of our environment."""

    def spawn(command: Sequence[str], *args: object) -> process.Server:
        [name] = [name for name in ("postgres", "valkey-server") if name == Path(command[0]).name]
        return real([*(clocks[name].under if name in clocks else ()), *command], *args)  # type: ignore[arg-type]

    real = process.spawn
    with mock.patch.object(postgres, "spawn", spawn), mock.patch.object(valkey, "spawn", spawn):
        yield


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """What the library shares stays behind where a process is killed: its name ends with the pid."""
    before = shared()
    yield
    for file in shared() - before:
        if not Path(f"/proc/{file.name.rpartition('_')[2]}").exists():
            file.unlink(missing_ok=True)


def shared() -> set[Path]:
    return set(Path("/dev/shm").glob("*faketime_*"))
