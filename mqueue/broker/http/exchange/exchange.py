"""An Exchange is one request and its answer: what ASGI calls `receive` and `send`.

The answer's head waits for the first of its body and leaves with it, in one write: a second one would cost the broker a
call of the system more, and wake the client for half an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from mqueue.broker.http import problem
from mqueue.broker.http.call import Message, Receive, Scope, Send
from mqueue.errors import MQueueError

App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE = (b"connection", b"close")

log = structlog.get_logger(__name__)


class Connection(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState

    def read_on(self) -> None: ...

    def on_response_complete(self) -> None: ...


class Exchange:
    """One request of `connection`. `body`: all of it, where it has come with its head. `keep_alive`: the connection
    goes on after the answer.
    """

    __slots__ = (
        "_body", "_connection", "_expects", "_head", "_heard", "_news", "app", "disconnected", "keep_alive", "more_body",
        "response_complete", "response_started", "scope",
    )  # fmt: skip

    def __init__(
        self, app: App, scope: Scope, connection: Connection, body: bytes | None = None, *, keep_alive: bool = True, expects: bool = False
    ) -> None:
        self.app = app
        self.scope = scope
        self.keep_alive = keep_alive
        self.disconnected = False
        self.more_body = body is None
        self.response_started = self.response_complete = False
        self._connection = connection
        self._body: bytes | bytearray = bytearray() if body is None else body
        self._heard: asyncio.Event | None = None  # made where somebody waits
        self._news = body is not None
        self._expects = expects  # 100 Continue
        self._head = b""

    # -- what the connection tells -------------------------------------------------------------------------------------

    def take(self, piece: bytes) -> int:
        """Takes more of the body; returns how much of it nobody has received yet."""
        self._body += piece
        self._tell()
        return len(self._body)

    def end_body(self) -> None:
        self.more_body = False
        self._tell()

    def disconnect(self) -> None:
        self.disconnected = True
        self._tell()

    def _tell(self) -> None:
        self._news = True
        if self._heard is not None:
            self._heard.set()

    # -- what the application asks -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Has it answered; what is not answered to its end closes the connection."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except BaseException as error:  # endpoints answer whatever happens: it failed while it was answered
            log.error("an answer failed", path=self.scope["path"], exc_info=error)
        finally:
            if not self.response_complete and not self.disconnected:
                self._give_up()

    def _give_up(self) -> None:
        if not self.response_started:
            status, headers, body = problem.answer(MQueueError())
            self._connection.transport.write(self._lines(status, [*headers, CLOSE]) + body)
        self._connection.transport.close()

    async def receive(self) -> Message:
        connection = self._connection
        if self._expects and not connection.transport.is_closing():
            self._expects = False
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not (self._news or self.disconnected or self.response_complete):
            connection.read_on()
            self._heard = asyncio.Event()
            await self._heard.wait()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        connection.read_on()
        body, self._body, self._news = bytes(self._body), bytearray(), False
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        connection = self._connection
        if connection.flow.write_paused and not self.disconnected:
            await connection.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message["status"], message["headers"])
        else:
            self._write(message["body"], more=message.get("more_body", False))

    def answer(self, status: int, headers: problem.Headers, body: bytes) -> bool:
        """Takes all of a small answer in one call. Returns False where that must wait, since the client does not read:
        send it then.
        """
        if self._connection.flow.write_paused:
            return False
        if not self.disconnected:
            self._start(status, headers)
            self._write(body)
        return True

    def _start(self, status: int, headers: problem.Headers) -> None:
        self.response_started, self._expects = True, False
        self._head = self._lines(status, headers)

    def _write(self, body: bytes, *, more: bool = False) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        if data := self._head + body if self._head else body:
            self._connection.transport.write(data)
        self._head = b""
        if not more:
            self._complete()

    def _lines(self, status: int, headers: problem.Headers) -> bytes:
        """Returns the head of the answer."""
        lines = [STATUS_LINE[status]]
        for name, value in (*self._connection.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        if CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _complete(self) -> None:
        self.response_complete = True
        self._tell()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()


def scope_of(
    method: str, path: str, raw_path: bytes, query_string: bytes, http_version: str, headers: list[tuple[bytes, bytes]]
) -> dict[str, Any]:
    """Returns what applications are told of a head."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": http_version,
        "method": method,
        "root_path": "",
        "path": path,
        "raw_path": raw_path,
        "query_string": query_string,
        "headers": headers,
    }
