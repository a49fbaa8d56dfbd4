"""How a worker and a process of its own talk: msgpack over a socket, the length before each message."""

import socket
from typing import TypeVar

import msgspec
from msgspec import Struct

from mqueue import message as m
from mqueue import wire

LENGTH = 4  # bytes of the length

T = TypeVar("T")


class Run(Struct, frozen=True):
    """To the process: run `qualname` of `module` for this message. `url`, `token`: where its app was told to enqueue."""

    module: str
    qualname: str
    message: wire.Message
    url: str | None
    token: str | None


class Began(Struct, frozen=True, tag=True):
    """From the process: all is imported, the handler begins."""


class Ended(Struct, frozen=True, tag=True):
    """From the process: the outcome, decided where the exception is."""

    kind: m.Kind
    error: str | None
    retry_after: float | None
    result: bytes | None


class Channel:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Struct) -> None:
        body = msgspec.msgpack.encode(message)
        self._sock.sendall(len(body).to_bytes(LENGTH) + body)

    def receive(self, kind: type[T]) -> T | None:
        """None: the other side is gone."""
        head = self._read(LENGTH)
        body = self._read(int.from_bytes(head)) if head else b""
        return msgspec.msgpack.decode(body, type=kind) if body else None

    def close(self) -> None:
        self._sock.close()

    def _read(self, size: int) -> bytes:
        """So many bytes, or none."""
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
