"""A server that answers as a test tells it, byte by byte."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import hiredis
from redis.asyncio.connection import ConnectionPool

from mqueue.broker.cache.connections import Connections

Answer = Callable[[list[bytes]], bytes | None]
HANDSHAKE = (b"HELLO", b"AUTH", b"CLIENT", b"SELECT")
PART = object()


class Scripted:
    """`answer`: returns the bytes for a command, which may be none, or None: the connection ends. One that is `deaf`
    reads nothing more after the first command. It `hears` so many bytes of what comes after the handshake, answers
    what is whole in them, and closes the connection.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.greet: Answer = lambda command: b"+OK\r\n"
        self.heard: list[list[list[bytes]]] = []  # by connection
        self.writers: list[asyncio.StreamWriter] = []
        self.greeted: list[list[bytes]] = []
        self.hears: int | None = None
        self.deaf = False
        self.port = 0
        self._talks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Scripted"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls, limit=1024)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()
            await asyncio.gather(*self._talks)

    def connections(self, timeout: float = 5.0, most: int = 4, options: str = "?protocol=2", scheme: str = "redis") -> Connections:
        """Ours to it. `most`: how many."""
        url = f"{scheme}://127.0.0.1:{self.port}{options}"
        return Connections(ConnectionPool.from_url(url, max_connections=most, socket_timeout=None), timeout)

    @property
    def commands(self) -> list[list[bytes]]:
        return [command for connection in self.heard for command in connection]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks.append(asyncio.create_task(self._talk(reader, writer)))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader(notEnoughData=PART)
        heard: list[list[bytes]] = []
        self.heard.append(heard)
        self.writers.append(writer)
        left = self.hears
        while data := await _read(reader):
            if left is not None and not any(word in data for word in HANDSHAKE):
                data = data[:left]
                left -= len(data)
            parser.feed(data)
            while (command := parser.gets()) is not PART:
                if command[0] in HANDSHAKE:
                    self.greeted.append(command)
                    said = self.greet(command)
                else:
                    heard.append(command)
                    said = self.answer(command)
                if said is None:
                    writer.close()
                    return
                writer.write(said)
            if self.deaf and heard:
                return
            if left == 0:
                break
        writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except OSError:
        return b""
