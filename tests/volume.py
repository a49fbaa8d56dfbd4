"""A small volume of its own, to fill up: a tmpfs, where mounting one is permitted."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

AS_ROOT = ([], ["sudo", "-n"])


@contextmanager
def mounted(path: Path, megabytes: int) -> Iterator[Path]:
    path.mkdir()
    options = f"size={megabytes}m,mode=0700,uid={os.getuid()},gid={os.getgid()}"
    said = ""
    for prefix in AS_ROOT:
        try:
            command = [*prefix, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            said = str(error)
            continue
        if done.returncode == 0:
            try:
                yield path
            finally:
                subprocess.run([*prefix, "umount", "--lazy", str(path)], check=True)
            return
        said = done.stderr.strip()
    pytest.skip(f"no tmpfs may be mounted here: {said}")


def fill(volume: Path, leave: int = 0) -> None:
    """A file `filler` that leaves so many bytes."""
    room = os.statvfs(volume)
    size = room.f_bavail * room.f_frsize - leave
    filler = volume / "filler"
    old = filler.stat().st_size if filler.exists() else 0
    with filler.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, old + size)


def make_read_only(volume: Path) -> None:
    done = [
        subprocess.run([*prefix, "mount", "-o", "remount,ro", str(volume)], check=False).returncode
        for prefix in AS_ROOT[: 1 if os.getuid() == 0 else 2]
    ]
    assert 0 in done
