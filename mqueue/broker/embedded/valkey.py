"""The embedded Valkey keeps nothing on the disk, evicts nothing, and listens on one unix socket.

The broker can rebuild what it held, so one that does not answer is replaced.
"""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from mqueue.broker.embedded.binaries import find_valkey
from mqueue.broker.embedded.ground import EmbeddedError, Ground, socket_path
from mqueue.broker.embedded.process import Server, last_words, runs, spawn, trim
from mqueue.paths import write_private

START_S = 10.0
ANSWER_S = 2.0  # to a PING
MARGIN, MARGIN_BYTES = 1.5, 64 * 1024 * 1024  # above what the shards may hold: for scripts, connections, and what is on its way to them
STOP = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))

# Small sorted sets as lists would make each lease of a hundred look through all the others.
CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
requirepass "{password}"
dir "{folder}"
pidfile "{pidfile}"
daemonize no
logfile ""
save ""
appendonly no
maxmemory {maxmemory}
maxmemory-policy noeviction
zset-max-listpack-entries 0
shutdown-on-sigterm nosave now
"""


def address(data_dir: Path) -> str:
    return f"unix://{quote(str(data_dir / 'valkey' / 'sock'))}"


class Valkey:
    name = "valkey"

    def __init__(self, ground: Ground, held_max: int = 0) -> None:
        """`held_max`: bytes that its shards may hold; 0: it has no limit."""
        self._maxmemory = int(MARGIN * held_max) + MARGIN_BYTES if held_max else 0
        self._folder = ground.subfolder("valkey")
        self._log = ground.subfolder("log") / "valkey.log"
        self._address = address(ground.folder)
        self._socket = socket_path(self._folder / "sock")
        self._pidfile = self._folder / "pid"
        self._config = self._folder / "valkey.conf"
        self._password = ground.credentials.valkey
        self._server: Server | None = None

    @property
    def address(self) -> str:
        return self._address

    def alive(self) -> bool:
        return self._server is not None and self._server.alive()

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def trim_log(self) -> None:
        trim(self._log)

    async def start(self) -> bool:
        """Takes over the server that runs here, or starts one; True when taken over. Raises EmbeddedError."""
        left = self._left_running()
        if left is not None and await self._answers():
            self._server = left
            return True
        if left is not None:
            await left.end(((signal.SIGKILL, 5.0),))
        self._socket.unlink(missing_ok=True)
        write_private(self._config, self._config_text())
        since = self._log.stat().st_size if self._log.exists() else 0
        self._server = spawn([str(find_valkey()), str(self._config)], str(self._folder), self._folder, self._log)
        await self._wait_ready(self._server, since)
        return False

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.end(STOP)
            self._server = None

    def _left_running(self) -> Server | None:
        with suppress(OSError, ValueError):
            pid = int(self._pidfile.read_text())
            if runs(pid, str(self._folder)):
                return Server(pid, str(self._folder))
        return None

    def _config_text(self) -> str:
        def text(value: object) -> str:
            return str(value).replace("\\", "\\\\").replace('"', '\\"')

        return CONFIG.format(
            socket=text(self._socket),
            password=text(self._password),
            folder=text(self._folder),
            pidfile=text(self._pidfile),
            maxmemory=self._maxmemory,
        )

    async def _wait_ready(self, server: Server, since: int) -> None:
        deadline = asyncio.get_running_loop().time() + START_S
        while not await self._answers():
            if not server.alive() or asyncio.get_running_loop().time() > deadline:
                server.send(signal.SIGKILL)
                raise EmbeddedError(f"Valkey does not start: {last_words(self._log, since) or 'no word from it'} (log: {self._log})")
            await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        """Does it take our password and limit, and answer? Told by hand: the client stays in the cache package."""
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                try:
                    writer.write(f"AUTH {self._password}\r\nCONFIG SET maxmemory {self._maxmemory}\r\nPING\r\n".encode())
                    return await reader.readexactly(17) == b"+OK\r\n+OK\r\n+PONG\r\n"
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
