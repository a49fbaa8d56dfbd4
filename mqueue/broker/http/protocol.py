"""uvicorn's httptools protocol gets limits here: on headers and trailers, on the time a request takes to arrive, on
connections.

uvicorn itself accepts headers of any size, takes trailers for headers, lets a request trickle in for ever, loses the
body of one that offers an upgrade, and tells only the newest of several requests on a connection that the client is
gone. Of its own it leaves the parser and the counting of connections: requests and answers are exchanges (`exchange/`).
"""

import asyncio
import select
import urllib.parse
from collections import deque
from collections.abc import Iterable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mqueue.broker.http import problem
from mqueue.broker.http.call import ANSWER, GONE, Receive, Scope, Send
from mqueue.broker.http.exchange.exchange import App, Exchange, scope_of
from mqueue.broker.http.exchange.heads import Heads
from mqueue.errors import Invalid, MQueueError, Unavailable

HEADERS_BYTES_MAX = 32 * 1024  # of a request line, headers and trailers
HEADERS_MAX = 100
ARRIVE_S = 10.0  # a request must arrive within, headers and body together
WRITE_S = 30.0  # an answer must be read within
CUT = "mqueue.cut"  # in the scope of a request whose client did not read its answer
PIPELINE_MAX = 4  # requests waiting behind another one, until no more is read
QUEUED_MAX = 4_000  # of them, in what was read already; a client that sends more is cut off


class BoundedProtocol(HttpToolsProtocol):
    """The protocol of one connection. `connections_max`: more than that are closed unread; as many requests at once:
    503. `heads`: those that were parsed before.
    """

    def __init__(self, *args: Any, connections_max: int, heads: Heads, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._app: App = self.app
        self._connections_max = connections_max
        self._heads = heads
        self._in_headers = True
        self._headers_bytes = 0  # of this request, as far as the parser has told
        self._pending = 0  # bytes of the reads since it told of something complete: one header may have any size
        self._unanswered: deque[Exchange] = deque()  # oldest first: that one is being answered, the others wait behind it
        self._latest: Exchange | None = None
        self._extensions = {GONE: self.has_gone, ANSWER: self._answer}
        self._refusal: MQueueError = Invalid("not an HTTP request")
        self._arriving_since: float | None = self.loop.time()  # None: between two requests
        self._idle_since = 0.0
        self._closing_since = 0.0
        self._unread_since: float | None = None  # the client reads more slowly than it is answered, or not at all

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._connections_max:
            self._refuse(_crowded())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for exchange in self._unanswered:
            exchange.disconnect()

    def data_received(self, data: bytes) -> None:
        between = self._arriving_since is None and not self._unanswered
        if between and (known := self._heads.find(data)) is not None:
            scope, body = known
            self._begin(Exchange(self._app, {**scope, "extensions": self._extensions}, self, body))
            return
        if self._arriving_since is None:
            self._arriving_since = self.loop.time()
        self._pending += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal)
            return
        if self._pending > HEADERS_BYTES_MAX:
            self._refuse_headers()
        elif between and self._arriving_since is None and len(self._unanswered) == 1 and self._unanswered[0].keep_alive:
            self._heads.remember(data, self._unanswered[0].scope)

    def _parse(self, data: bytes) -> None:
        """The parser takes an offered upgrade (h2c, say) for the end of HTTP: it is told the same request without the
        offer.
        """
        rest = memoryview(data)
        while True:
            try:
                return self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                self.parser.feed_data(self._head_without_upgrade())

    def _head_without_upgrade(self) -> bytes:
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([first, *lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._headers_bytes = 0
        self._arriving_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self._in_headers:  # a trailer says nothing here: it could carry what only a header may, a token say
            super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._headers_bytes += size
        if self._headers_bytes > HEADERS_BYTES_MAX:
            self._refuse_headers()
            raise ValueError("too large headers")  # makes the parser stop

    def on_headers_complete(self) -> None:
        parser = self.parser
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                raise ValueError("not a proxy")
            return
        self._in_headers = False
        self._pending = 0
        if len(self.headers) > HEADERS_MAX:
            self._refusal = problem.HeadersTooLarge(f"more than {HEADERS_MAX} headers")
            raise ValueError("too many headers")
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        version = parser.get_http_version()
        scope = scope_of(
            parser.get_method().decode("ascii"),
            urllib.parse.unquote(path) if "%" in path else path,
            url.path,
            url.query or b"",
            version,
            self.headers,
        )
        scope["extensions"] = self._extensions
        keep_alive = version != "1.0" and parser.should_keep_alive()
        self._begin(Exchange(self._app, scope, self, keep_alive=keep_alive, expects=self.expect_100_continue))

    def _begin(self, exchange: Exchange) -> None:
        """Has it answered, once what came before it is."""
        if len(self.tasks) >= self._connections_max:
            exchange.app = _overloaded
        self._latest = exchange
        self._unanswered.append(exchange)
        if len(self._unanswered) == 1:
            self._start(exchange)
        elif len(self._unanswered) > QUEUED_MAX:
            self.transport.abort()
            raise ValueError("too many requests at once")  # makes the parser stop
        elif self._is_full():  # up to there it is read on, or else a client that hangs up is not noticed
            self.flow.pause_reading()

    def _is_full(self) -> bool:
        return len(self._unanswered) > PIPELINE_MAX + 1

    def read_on(self) -> None:
        if not self._is_full():
            self.flow.resume_reading()

    def _start(self, exchange: Exchange) -> None:
        task = self.loop.create_task(exchange.run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_chunk_header(self) -> None:
        self._pending = 0

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        exchange = self._latest
        if exchange is not None and not exchange.response_complete and exchange.take(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_headers = True
        self._pending = 0
        self._arriving_since = None
        if self._latest is not None:
            self._latest.end_body()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread_since is None:
            self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not (self._unanswered and self._unanswered[0].response_started):
            self._unread_since = None

    def _answer(self, status: int, headers: problem.Headers, body: bytes) -> bool:
        return self._unanswered[0].answer(status, headers, body)  # nobody else is asked

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        if not self.flow.write_paused:
            self._unread_since = None
        now = self.loop.time()
        if self._arriving_since is not None:  # of a pipelined request, held back by us until now
            self._arriving_since = now
        self._idle_since = now
        if self.transport.is_closing():
            return
        self.read_on()
        if self._unanswered:
            self._start(self._unanswered[0])

    def shutdown(self) -> None:
        if self._unanswered:
            self._unanswered[-1].keep_alive = False
        else:
            self.transport.close()

    def end_if_late(self, now: float) -> None:
        """Ends what is late; called once a second. A request held back behind another one is not late."""
        if self.transport.is_closing():  # it waits for the client to read what is left
            self._closing_since = self._closing_since or now
            if now - self._closing_since > WRITE_S:
                self.transport.abort()
            return
        if self._unread_since is not None and now - self._unread_since > WRITE_S:
            if self._unanswered:
                self._unanswered[0].scope[CUT] = True
            self.transport.abort()
            return
        if self._arriving_since is None:
            if not self._unanswered and now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()
            return
        if now - self._arriving_since < ARRIVE_S or self._held_back():
            return
        if self._latest is not None and self._latest.response_started and not self._in_headers:
            self.transport.abort()  # answered already (413, say), and still sending
        elif self._in_headers and self._pending == 0:
            self.transport.close()
        else:
            self._refuse(problem.RequestTimeout(f"a request must arrive within {ARRIVE_S:g} s"))

    def _held_back(self) -> bool:
        """Does what is arriving come behind a request that is being served?"""
        return bool(self._unanswered) and (len(self._unanswered) > 1 or not self._unanswered[0].more_body)

    def _refuse_headers(self) -> None:
        if self._in_headers:
            self._refuse(problem.HeadersTooLarge(f"more than {HEADERS_BYTES_MAX} bytes"))
        else:
            self.transport.abort()  # of trailers: the request may have been answered, or is about to be

    def _refuse(self, error: MQueueError) -> None:
        if self.transport.is_closing():
            return
        earlier = len(self._unanswered) - (not self._in_headers)
        if earlier > 0:  # their answers come first, and then the end
            self._unanswered[earlier - 1].keep_alive = False
            self.flow.pause_reading()
            return
        status, headers, body = problem.answer(error)
        lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in headers), b"connection: close\r\n\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.close()

    def has_gone(self) -> bool:
        """Has the client closed, its half or all? A loop that was held up has not read that yet; the socket knows."""
        if self.transport.is_closing():
            return True
        if (connection := self.transport.get_extra_info("socket")) is None:
            return False
        look = select.poll()
        look.register(connection.fileno(), select.POLLRDHUP)
        return bool(look.poll(0))

    def eof_received(self) -> None:
        """The client closed, or its half: either way it is treated as gone (the transport closes itself)."""


def _crowded() -> MQueueError:
    return Unavailable("too many requests at once", retry_after=1.0)


async def _overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    status, headers, body = problem.answer(_crowded())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


def sweep(connections: Iterable[object]) -> None:
    """Closes what is late."""
    now = asyncio.get_running_loop().time()
    for connection in list(connections):
        if isinstance(connection, BoundedProtocol):
            connection.end_if_late(now)
