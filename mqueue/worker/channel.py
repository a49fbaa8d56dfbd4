"""A worker and a process of its own talk by msgpack over a socket, the length before each message."""

import os
import select
import signal
import socket
import sys
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from mqueue import logs, wire
from mqueue import message as m

LENGTH = 4  # bytes of the length
ASK = signal.SIGUSR1  # a process of the pool is asked to end its job: SIGINT may come from outside
PROGRAM = "import sys; fd, logs, *sys.path[:] = sys.argv[1:]; from {} import main; main(int(fd), logs == 'True')"

T = TypeVar("T")


class Run(Struct, frozen=True):
    """It tells the process to run `qualname` of `module` for this message. `url`, `token`: where its app was told to
    enqueue.
    """

    module: str
    qualname: str
    message: wire.Message
    url: str | None
    token: str | None


class Began(Struct, frozen=True, tag=True):
    """The process tells that all is imported, and the handler may begin."""


class Go(Struct, frozen=True):
    """It tells the process that the handler begins: the job is still wanted."""


class Ended(Struct, frozen=True, tag=True):
    """The process tells the outcome, decided where the exception is."""

    kind: m.Kind
    error: str | None
    retry_after: float | None
    result: bytes | None


def command(module: str, fd: int) -> list[str]:
    """Gives the command of a process of our own, in which `main(fd, with_logs)` of `module` runs."""
    return [sys.executable, "-c", PROGRAM.format(module), str(fd), str(structlog.is_configured()), *sys.path]


def opened(fd: int, with_logs: bool) -> "Channel":
    """Opens the channel in that process: its end."""
    os.set_inheritable(fd, False)
    if with_logs:
        logs.configure()
    return Channel(socket.socket(fileno=fd))


class Channel:
    """It is one end of the socket, and sends and receives whole messages."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: Struct) -> None:
        body = msgspec.msgpack.encode(message)
        self._sock.sendall(len(body).to_bytes(LENGTH) + body)

    def receive(self, kind: type[T]) -> T | None:
        """Waits for the next message. None: the other side is gone."""
        head = self._read(LENGTH)
        body = self._read(int.from_bytes(head)) if head else b""
        return msgspec.msgpack.decode(body, type=kind) if body else None

    def close(self) -> None:
        self._sock.close()

    def wait_closed(self) -> None:
        """Blocks until the other side is gone."""
        poll = select.poll()
        poll.register(self._sock.fileno(), 0)  # no events: a poll always tells when the other end is closed
        poll.poll()

    def _read(self, size: int) -> bytes:
        """Reads so many bytes, or none."""
        data = bytearray()
        while len(data) < size:
            try:
                part = self._sock.recv(size - len(data))
            except ConnectionError:
                return b""
            if not part:
                return b""
            data += part
        return bytes(data)
