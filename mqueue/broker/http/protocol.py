"""uvicorn's httptools protocol with limits: on headers, on the time a request takes to arrive, on connections.

uvicorn itself accepts headers of any size, and a request that trickles in for ever.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mqueue.broker.http import problem
from mqueue.broker.http.call import Receive, Scope, Send
from mqueue.errors import Invalid, MQueueError, Unavailable

HEADERS_BYTES_MAX = 32 * 1024  # of a request line and headers not yet complete
HEADERS_MAX = 100
ARRIVE_S = 10.0  # a request must arrive within, headers and body together
CONNECTIONS_MAX = 4_096  # more than that, or as many requests at once: 503


class BoundedProtocol(HttpToolsProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._app = self.app
        self._headers_bytes = 0
        self._in_headers = True
        self._refusal: MQueueError = Invalid("not an HTTP request")
        self._arriving_since: float | None = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._arriving_since is None:
            self._arriving_since = self.loop.time()
        if self._in_headers:
            self._headers_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._headers_bytes > HEADERS_BYTES_MAX:
            self._refuse(problem.HeadersTooLarge(f"more than {HEADERS_BYTES_MAX} bytes"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._headers_bytes = 0
        if len(self.headers) > HEADERS_MAX:
            self._refusal = problem.HeadersTooLarge(f"more than {HEADERS_MAX} headers")
            raise ValueError("too many headers")  # makes the parser stop; uvicorn then calls send_400_response
        crowded = len(self.connections) > CONNECTIONS_MAX or len(self.tasks) >= CONNECTIONS_MAX
        self.app = _overloaded if crowded else self._app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_headers = True
        self._headers_bytes = 0
        self._arriving_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._arriving_since is not None:  # of a pipelined request, held back by us until now
            self._arriving_since = self.loop.time()
        super().on_response_complete()

    def end_if_late(self, now: float) -> None:
        """Called once a second. A request held back behind another one is not late."""
        if self._arriving_since is None or now - self._arriving_since < ARRIVE_S or self._held_back():
            return
        if self.cycle is not None and self.cycle.response_started and not self._in_headers:
            self.transport.abort()  # answered already (413, say), and still sending
        elif self._in_headers and self._headers_bytes == 0:
            self.transport.close()
        else:
            self._refuse(problem.RequestTimeout(f"a request must arrive within {ARRIVE_S:g} s"))

    def _held_back(self) -> bool:
        """What is arriving comes behind a request that is being served."""
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _refuse(self, error: MQueueError) -> None:
        if self.transport.is_closing():
            return
        status, headers, body = problem.answer(error)
        lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in headers), b"connection: close\r\n\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.close()

    def eof_received(self) -> None:
        """The client closed, or its half: either way it is treated as gone (the transport closes itself)."""


async def _overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    status, headers, body = problem.answer(Unavailable("too many requests at once", retry_after=1.0))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


def sweep(connections: Iterable[object]) -> None:
    """Close what is late."""
    now = asyncio.get_running_loop().time()
    for connection in list(connections):
        if isinstance(connection, BoundedProtocol):
            connection.end_if_late(now)
