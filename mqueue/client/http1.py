"""This is HTTP/1.1 without I/O: a request as bytes, and the reader of its reply.

It knows what a broker, and a proxy before it, may answer: a body of known length, in chunks or until the end of the
connection, and 1xx before the answer. It asks for no compression and follows no redirect.
"""

from collections.abc import Mapping
from typing import NamedTuple, NoReturn, Protocol
from urllib.parse import urlsplit

import httptools

HEAD_MAX = 64 * 1024  # bytes of a reply's head, with every 1xx before it
BODY_MAX = 512 * 1024 * 1024  # bytes; 1,000 messages of the largest payload take 350 MB as JSON


class Broken(ConnectionError):
    """The connection gave no whole reply, or none that is HTTP."""


class Headers(Protocol):
    """They are found by name in any case."""

    def get(self, name: str, /) -> str | None: ...


class HeaderLines:
    """These are headers as they came."""

    __slots__ = ("_lines",)

    def __init__(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._lines = lines

    def get(self, name: str, /) -> str | None:
        """Returns the first value of that name."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self._lines if key.lower() == wanted), None)


class Reply(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class Requests:
    """It writes requests for one broker."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        self._prefix = parts.path
        self._always = f" HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: mqueue\r\n"
        if token is not None:
            self._always += f"Authorization: Bearer {token}\r\n"

    def write(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """Returns the request. Raises ValueError for a path or a header that would be more than that."""
        if not "".join([*headers, *headers.values(), path]).isprintable() or " " in path:  # a line break is not printable
            raise ValueError(f"a path has no space, and a header no line break: {path!r}, {dict(headers)!r}")
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if body is None:
            length = "Content-Length: 0\r\n" if method in ("POST", "PUT") else ""
            return f"{method} {self._prefix}{path}{self._always}{lines}{length}\r\n".encode("ascii")
        return f"{method} {self._prefix}{path}{self._always}{lines}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


class ReplyReader:
    """It reads the replies on one connection, each to a request that went before. `reusable`: may another
    request follow on the connection?
    """

    __slots__ = (
        "_arrived", "_body", "_body_max", "_head", "_head_max", "_in_body", "_lines", "_parser", "_reply", "_wrong", "reusable"
    )  # fmt: skip

    def __init__(self, head_max: int = HEAD_MAX, body_max: int = BODY_MAX) -> None:
        self.reusable = True
        self._head_max, self._body_max = head_max, body_max
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._begin()

    def feed(self, data: bytes) -> Reply | None:
        """Returns the reply once it is whole. Raises Broken. What comes behind a reply spoils the connection alone."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("it goes over to another protocol")
        except httptools.HttpParserError as error:
            self.reusable = False
            if (cause := error.__context__) is not None and not isinstance(cause, Exception):
                raise cause from None  # an interrupt that met a callback of the parser
            if self._reply is None:
                raise Broken(f"the answer is not HTTP as it should be: {self._wrong or error}") from None
        if (reply := self._reply) is not None:
            self._reply = None
            self._begin()
            return reply
        if not self._in_body:
            self._arrived += len(data)
            if self._arrived > self._head_max:
                self._refuse(self._long_head())
        return None

    def end(self) -> Reply:
        """The connection has ended. Returns the reply that ends with it, or raises Broken."""
        self.reusable = False
        if not self._arrived and not self._in_body:
            raise Broken("the connection was closed before an answer came")
        headers = HeaderLines(self._lines)
        if not self._in_body or headers.get("Content-Length") is not None or headers.get("Transfer-Encoding") is not None:
            raise Broken("the connection was closed amid the answer")
        return Reply(self._parser.get_status_code(), headers, bytes(self._body))

    def _begin(self) -> None:
        self._lines: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._in_body = False
        self._head = self._arrived = 0  # bytes of whole headers; of what came before the head was whole
        self._wrong = ""

    def _long_head(self) -> str:
        return f"its head is longer than {self._head_max:,} bytes"

    def _refuse(self, wrong: str) -> NoReturn:
        self.reusable, self._wrong = False, wrong
        raise Broken(f"the answer is not HTTP as it should be: {wrong}")

    # ── what the parser calls ──

    def on_message_begin(self) -> None:
        if self._reply is not None:
            self._refuse("something follows it")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + 4
        if self._head > self._head_max:
            self._refuse(self._long_head())
        if self._in_body:  # a trailer, whose rest the parser may take for a header of the next reply
            self.reusable = False
        else:
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._body_max:
            self._refuse(f"its body is longer than {self._body_max:,} bytes")
        self._body += data

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # the answer is yet to come
            self._lines, self._in_body = [], False
            return
        self.reusable = self.reusable and self._parser.should_keep_alive()
        self._reply = Reply(status, HeaderLines(self._lines), bytes(self._body))
