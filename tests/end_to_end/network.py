"""A network between clients and a broker: TCP to TCP on loopback, from a thread and a loop of its own. It can be cut and stalled."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

CHUNK = 1 << 16


class Network:
    """To 127.0.0.1:`target`. `cut` resets connections and refuses new ones. `stall`: not a byte passes. `heal`: new ones pass; those that
    were stalled are reset, or, with `forgets`, stay open for ever and never pass a byte again.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = True
        self._life = 0  # connections of an earlier one are dead
        self._refuses = False
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._do(self._listen())}"
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        self._do(self._set(refuses=True, flows=True))

    def stall(self) -> None:
        self._do(self._set(refuses=False, flows=False))

    def heal(self, *, forgets: bool = False) -> None:
        self._do(self._set(refuses=False, flows=True, forgets=forgets))

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _set(self, *, refuses: bool, flows: bool, forgets: bool = False) -> None:
        self._life += not flows
        self._refuses, self._flows = refuses, flows
        if refuses or (flows and not forgets):
            for writer in list(self._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = {writer}
        self._writers |= writers
        try:
            if self._refuses:
                return
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.add(up_writer)
            self._writers.add(up_writer)
            pumps = [
                asyncio.create_task(self._pump(reader, up_writer, self._life)),
                asyncio.create_task(self._pump(up_reader, writer, self._life)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
        except OSError:
            pass
        finally:
            self._writers -= writers
            for each in writers:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, life: int) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._flows and life == self._life:
                    writer.write(data)
                    await writer.drain()
