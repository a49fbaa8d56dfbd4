"""It shows a few pages over HTTP/1, for an orchestrator to look at: `/live`, `/ready`, `/metrics`.

It has a thread and a loop of its own, so that a handler that blocks the worker's loop does not block them. There is one
request a connection; what is slow or long is cut off.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

import structlog

from mqueue.errors import MQueueError
from mqueue.worker.status import Page

REQUEST_S = 5.0
HEAD_MAX = 16 * 1024
CONNECTIONS_MAX = 64
START_S = 10.0

log = structlog.get_logger("mqueue.worker")


class ProbeError(MQueueError):
    """The probe cannot listen there."""

    code, title = "worker", "The probe cannot start"


class Probe:
    """It serves `pages`: by path, what each shows; called from the probe's thread. `port` 0: any that is free."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._host = host
        self.port = port
        self._pages = pages
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mqueue-probe", daemon=True)

    def start(self) -> None:
        """Listens from now on. Raises ProbeError."""
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        try:
            self.port = listening.result(START_S)
        except (OSError, OverflowError, UnicodeError) as error:
            self.stop()
            raise ProbeError(f"the probe cannot listen on {self._host} port {self.port}: {error}") from error
        log.info("probe", host=self._host, port=self.port, pages=list(self._pages))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, self._host, self.port, limit=HEAD_MAX)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open -= 1
            with suppress(OSError):
                writer.close()

    def _answer(self, head: bytes) -> bytes:
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        method, target = (words[0], words[1]) if len(words) == 3 else ("", "")
        page = self._pages.get(target.partition("?")[0])
        if not method:
            status, text = 400, "not an HTTP request\n"
        elif page is None:
            status, text = 404, f"there are: {', '.join(self._pages)}\n"
        elif method not in ("GET", "HEAD"):
            status, text = 405, "GET and HEAD only\n"
        else:
            status, text = page()
        body = text.encode()
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: text/plain; version=0.0.4; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(["Allow: GET, HEAD"] if status == 405 else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else body)
