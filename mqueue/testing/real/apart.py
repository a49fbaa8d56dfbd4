"""Some jobs run in processes of their own: what they enqueue goes to the test's namespace too, and
the test hears of it.

The worker starts them with `main` in place of `child.main`; what `main` needs to know is in their environment. They
write the ids of what they have enqueued to a file before their job ends.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import msgspec
from msgspec import Struct

from mqueue import wire
from mqueue.client import Client
from mqueue.testing.real.here import AsyncHere, Here
from mqueue.worker import channel
from mqueue.worker.running import child, processes
from mqueue.worker.tasks.producer import Producer

VARIABLE = "MQUEUE_TEST_APART"


class Place(Struct, frozen=True):
    """`file` takes the ids."""

    url: str
    token: str | None
    namespace: str
    file: str


class Ids:
    """It has the ids that processes have written, and gives each once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0  # bytes

    def new(self) -> list[int]:
        with self._file.open("rb") as file:
            file.seek(self._read)
            lines, newline, _ = file.read().rpartition(b"\n")  # a line may be on its way
        self._read += len(lines + newline)
        return [int(line) for line in lines.split()]


@contextmanager
def surrounding(url: str, token: str | None, namespace: str) -> Iterator[Ids]:
    """Processes of jobs that are started within it run `main`."""
    with tempfile.NamedTemporaryFile(prefix="mq-ids-") as file:
        os.environ[VARIABLE] = msgspec.json.encode(Place(url, token, namespace, file.name)).decode()
        try:
            with mock.patch.object(processes, "command", _command):
                yield Ids(Path(file.name))
        finally:
            os.environ.pop(VARIABLE, None)


def _command(module: str, fd: int) -> list[str]:
    return channel.command(__name__, fd)


def main(fd: int, with_logs: bool) -> None:
    """Runs in such a process. It has no other use, so what is changed stays changed."""
    place = msgspec.json.decode(os.environ[VARIABLE], type=Place)
    here, here_async = Here(Client(place.url, place.token), place.namespace), AsyncHere(place.url, place.token, place.namespace)

    def tell(ids: list[int]) -> list[int]:
        with open(place.file, "a") as file:
            file.write("".join(f"{id}\n" for id in ids))
        return ids

    def enqueue_many(producer: Producer, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return tell(here.enqueue_many(items))

    async def enqueue_many_async(producer: Producer, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return tell(await here_async.enqueue_many(items))

    async def async_client(producer: Producer) -> AsyncHere:
        return here_async

    changes = {
        "client": lambda producer: here, "async_client": async_client,
        "enqueue_many": enqueue_many, "enqueue_many_async": enqueue_many_async,
    }  # fmt: skip
    for name, value in changes.items():
        setattr(Producer, name, value)
    child.main(fd, with_logs)
