"""A broker's disk: it keeps what was synced, file and directory apart; at a power loss the rest is there or not, in
part, torn.

Real files (memory is best), since the log is read with the ordinary calls; beside them what is durable of each. The
worst case, all that was not synced gone, is what `durable` shows at any moment.
"""

import errno
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from mqueue.broker.wal.disk import OsDisk

from .loop import Killed


class File:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = b""


Names = dict[str, File]


class Directory:
    """`names`: as the page cache has them; `durable`: as the disk has them; `steps`: from the one to the other."""

    def __init__(self) -> None:
        self.names: Names = {}
        self.durable: Names = {}
        self.steps: list[Callable[[Names], object]] = []

    def do(self, step: Callable[[Names], object]) -> None:
        step(self.names)
        self.steps.append(step)


class ForgetfulDisk(OsDisk):
    """`fuse`: so many changes from now the machine loses power, in the middle of one; `blown` is told. `full`,
    `broken`: ENOSPC, EIO.
    """

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root = root
        self._rng = rng
        self.directories: dict[Path, Directory] = {}
        self._fds: dict[int, File] = {}
        self.full = False
        self.broken = False
        self.refused = False  # a write, once: what it was to hold is on no disk
        self.fuse: int | None = None
        self.blown: Callable[[], object] = lambda: None
        self.changed: Callable[[], object] = lambda: None  # a durable log is gone, or another one

    def _step(self) -> None:
        if self.fuse is None:
            return
        self.fuse -= 1
        if self.fuse == 0:
            self.blown()
        if self.fuse <= 0:
            raise Killed("power")

    def _directory(self, path: Path) -> Directory:
        return self.directories.setdefault(path, Directory())

    def _refuse(self, number: int, why: str) -> OSError:
        self.refused = True
        return OSError(number, why)

    def create(self, path: Path) -> int:
        self._step()
        if self.full and self._rng.random() < 0.5:
            raise self._refuse(errno.ENOSPC, "no room")
        fd = super().create(path)
        file = self._fds[fd] = File()
        self._directory(path.parent).do(lambda names: names.__setitem__(path.name, file))
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        part = data[: max(1, len(data) // 2)] if len(data) > 20 else data  # power may go between the halves
        self._step()
        if self.full:
            raise self._refuse(errno.ENOSPC, "no room")
        written = super().write(fd, part)
        self._fds[fd].data += part[:written]
        return written

    def truncate(self, fd: int, size: int) -> None:
        self._step()
        super().truncate(fd, size)
        del self._fds[fd].data[size:]

    def fdatasync(self, fd: int) -> None:
        self._step()
        if self.broken:
            raise self._refuse(errno.EIO, "broken")
        self._fds[fd].synced = bytes(self._fds[fd].data)

    fsync = fdatasync

    def close(self, fd: int) -> None:
        super().close(fd)
        self._fds.pop(fd, None)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        super().rename(old, new)

        def step(names: Names) -> None:
            if old.name in names:
                names[new.name] = names.pop(old.name)

        self._directory(old.parent).do(step)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)
        self._directory(path.parent).do(lambda names: names.pop(path.name, None))

    def sync_directory(self, path: Path) -> None:
        self._step()
        if self.broken:
            raise OSError(errno.EIO, "broken")
        directory = self._directory(path)
        less = any(directory.names.get(name) is not file for name, file in directory.durable.items() if name.endswith(".wal"))
        directory.durable = dict(directory.names)
        directory.steps.clear()
        for child in path.iterdir():
            if child.is_dir():
                directory.durable[child.name] = File()
        if less:
            self.changed()

    # -- the end of a process, of power --------------------------------------------------------------------------------

    def end_process(self) -> None:
        """Its descriptors are closed; what it wrote stays in the page cache."""
        for fd in list(self._fds):
            self.close(fd)

    def lose_power(self) -> None:
        """Call it when the process is gone."""
        self.end_process()
        self.fuse, self.full, self.broken = None, False, False
        for path, directory in list(self.directories.items()):
            if not path.is_relative_to(self.root):
                continue
            if not path.is_dir():
                del self.directories[path]
                continue
            if path != self.root and path.name not in self._directory(path.parent).durable:
                shutil.rmtree(path)  # its own name was not durable
                del self.directories[path]
                continue
            names = dict(directory.durable)
            for step in directory.steps[: self._rng.choice([0, 0, len(directory.steps), self._rng.randint(0, len(directory.steps))])]:
                step(names)
            for child in path.iterdir():
                if child.is_file() and child.name != "lock":
                    child.unlink()
            directory.steps.clear()
            directory.names = names
            for name, file in names.items():
                if (path / name).is_dir():
                    continue
                file.data = bytearray(self._survives(file))
                file.synced = bytes(file.data)
                (path / name).write_bytes(file.data)
            directory.durable = dict(names)

    def _survives(self, file: File) -> bytes:
        rng, synced, data = self._rng, file.synced, bytes(file.data)
        if not data.startswith(synced):
            return rng.choice([synced, data])  # cut, and the cut not synced
        loose = data[len(synced) :]
        kept = loose[: rng.choice([0, 0, len(loose), rng.randint(0, len(loose))])]
        torn = len(loose) - len(kept)
        return synced + kept + (bytes(torn) if torn and rng.random() < 0.3 else b"")

    def durable(self, directory: Path) -> dict[str, File]:
        """What is there if the power went now, at the least: names, and files whose `synced` counts."""
        found = self.directories.get(directory)
        if found is None:
            return {}
        parent = self.directories.get(directory.parent)
        if directory != self.root and (parent is None or directory.name not in parent.durable):
            return {}
        return found.durable
