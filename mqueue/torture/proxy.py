"""A proxy is a way to a server that can be cut and stalled: TCP on loopback, to a unix socket or a port."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Literal

CHUNK = 1 << 16
Healed = Literal["flow", "reset", "forgotten"]
End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """`target` is the path of a unix socket, or a port of 127.0.0.1. It is for one event loop; `port`: where it
    listens, once started.

    `cut` resets connections and refuses new ones. `stall` keeps them, and not a byte passes. `heal` lets new ones
    pass; those that were stalled *flow* on with what was held back, are *reset*, or *forgotten*: they stay open,
    and never pass a byte again.
    """

    def __init__(self, target: Path | int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._refuses = False
        self._flow = Flow()  # of the connections that begin now
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        self._refuses = True
        self._reset()

    def stall(self) -> None:
        self._flow.passes.clear()

    def heal(self, stalled: Healed = "flow") -> None:
        self._refuses = False
        if stalled == "reset":
            self._reset()
        self._flow.passes.set()
        if stalled == "forgotten":
            self._flow.forgotten = True
            self._flow = Flow()

    async def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _reset(self) -> None:
        for connection in self._connections:
            connection.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        connection = Connection((reader, writer), there, self._flow)
        self._connections.add(connection)
        if self._refuses:  # it was cut while it connected
            connection.reset()
        try:
            await connection.end()
        finally:
            self._connections.remove(connection)

    async def _connect(self) -> End:
        if self._refuses:
            raise ConnectionRefusedError
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection("127.0.0.1", self._target)


class Flow:
    """It decides on the bytes of the connections that began with it."""

    def __init__(self) -> None:
        self.passes = asyncio.Event()
        self.passes.set()
        self.forgotten = False


class Connection:
    """It carries both directions of one connection."""

    def __init__(self, here: End, there: End, flow: Flow) -> None:
        self._writers = here[1], there[1]
        self._pumps = [asyncio.create_task(_pump(here[0], there[1], flow)), asyncio.create_task(_pump(there[0], here[1], flow))]

    def reset(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        for writer in self._writers:
            writer.transport.abort()

    async def end(self) -> None:
        """Returns when one side has closed it, or it was reset."""
        try:
            await asyncio.wait(self._pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.reset()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            await flow.passes.wait()
            if not flow.forgotten:
                writer.write(data)
                await writer.drain()
