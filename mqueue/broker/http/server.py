"""An HttpServer is one server inside the running loop: uvicorn with httptools, without its signal handlers, logging and
`sys.exit`.
"""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import uvicorn

from mqueue.broker.http import descriptors
from mqueue.broker.http.exchange.heads import Heads
from mqueue.broker.http.protocol import BoundedProtocol, sweep

KEEP_ALIVE_S = 5
BACKLOG = 2_048
HANDSHAKE_TIMEOUT_S = 10.0
LAST_WORDS_S = 1.0  # after the grace: for the 503 answers to leave


class HttpServer:
    """Serves `app` on host and port (0: any free one; `url` has the real one). `tls`: certificate chain and key, PEM.

    `app` is ASGI; if it has `drain()`, that is called when the server stops; if it has `hot`, these are the paths that
    are asked for again and again. `connections_max`: as many as the
    process's limit of open files allows, unless given.
    """

    def __init__(self, app: Any, host: str, port: int, *, tls: tuple[Path, Path] | None = None, connections_max: int | None = None) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._tls = tls
        self._connections_max = connections_max
        self._context: ssl.SSLContext | None = None
        self._server: _Server | None = None
        self._main_loop: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self) -> None:
        """Listens. Raises OSError when the address is taken, ssl.SSLError or OSError for the files."""
        if self._tls is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.set_alpn_protocols(["http/1.1"])
            self.reload_certificate()
        config = uvicorn.Config(
            self._app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            loop="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        config.load()
        most = self._connections_max or descriptors.connections_max(descriptors.raise_limit())
        server = _Server(config, most, Heads(getattr(self._app, "hot", ())))
        port = await server.listen(self._host, self._port, self._context)
        self._server = server
        self.url = _url("https" if self._tls else "http", self._host, port)
        self._main_loop = asyncio.create_task(server.main_loop())

    def reload_certificate(self) -> None:
        """Reads the files again, for connections to come. Raises ssl.SSLError or OSError; the old ones stay then."""
        if self._context is not None and self._tls is not None:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*self._tls)  # what fails leaves a context without a pair
            self._context.load_cert_chain(*self._tls)

    async def stop(self, grace: float = 5.0) -> None:
        """Takes no new connections; the requests under way have `grace` seconds to end, then they are answered 503."""
        if self._server is None or self._main_loop is None:
            return
        server, self._server = self._server, None
        server.close()
        if (drain := getattr(self._app, "drain", None)) is not None:
            drain()
        if not await server.idle(grace):
            server.cancel_requests()
            await server.idle(LAST_WORDS_S)
        server.abort_connections()
        self._main_loop.cancel()
        await asyncio.wait([self._main_loop])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connections_max: int, heads: Heads) -> None:
        super().__init__(config)
        self._connections_max = connections_max
        self._heads = heads

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """In the place of `startup`, which ends the process when it cannot bind."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: BoundedProtocol(self.config, self.server_state, {}, loop, connections_max=self._connections_max, heads=self._heads),
            host,
            port,
            ssl=context,
            backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if context else None,
        )
        self.servers = [self._listener]
        bound: socket.socket = self._listener.sockets[0]
        return int(bound.getsockname()[1])

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # a tick is 0.1 s
            sweep(self.server_state.connections)
        return await super().on_tick(counter)

    def close(self) -> None:
        self._listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def idle(self, timeout: float) -> bool:
        """Wait until no request is under way."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while tasks := set(self.server_state.tasks):  # one that ends may begin what was pipelined behind it
            _, late = await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
            if late:
                return False
        return True

    def cancel_requests(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()

    def abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.close()


def _url(scheme: str, host: str, port: int) -> str:
    """Returns an address one can connect to."""
    name = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"
