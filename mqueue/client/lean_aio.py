"""This carries requests over connections that are kept open, on an event loop: asyncio's own, or uvloop.

A request is written once. A connection that the broker has closed meanwhile is noticed as soon as the loop is; where
it breaks later, the broker may have taken the request, and the caller decides.
"""

import asyncio
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import aiohappyeyeballs

from mqueue.client import protocol
from mqueue.client.http1 import Broken, Reply, ReplyReader, Requests
from mqueue.client.protocol import Call

NEXT_ADDRESS_S = 0.25  # after which another address of the name is tried, too


class Session:
    """It has at most `connections` open at a time: further calls wait for one within their timeout. It belongs to the
    loop that runs.
    """

    def __init__(self, url: str, token: str | None, connections: int, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self.closed = False
        self._requests = Requests(url, token)
        self._host = parts.hostname or ""
        self._port = parts.port or (80 if tls is None else 443)
        self._tls = tls
        self._free = connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: list[Connection] = []  # the one used last is the first to be used again
        self._open: set[Connection] = set()

    async def send(self, call: Call[Any], timeout: float) -> Reply:
        """Returns the broker's answer. Raises OSError when there is none after `timeout` seconds, the connection
        breaks, or `close` is called.
        """
        now = time.monotonic()
        until = now + timeout
        request = self._requests.write(call.method, call.path, call.headers, call.body)
        if self._free:
            self._free -= 1
        else:
            await self._wait(timeout)
        try:
            connection = self._kept(now) or await self._connect(until)
            try:
                reply = await connection.ask(request, until)
            except BaseException:
                connection.close()
                raise
            if connection.reusable:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()
            return reply
        finally:
            self._leave()

    async def close(self) -> None:
        """Close what is open; what is under way gets no answer."""
        self.closed = True
        for connection in [*self._open]:
            connection.close()
        await asyncio.sleep(0)  # the loop closes them in its next turn

    def _kept(self, now: float) -> "Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < protocol.IDLE_S and connection.silent():
                return connection
            connection.close()
        return None

    async def _wait(self, timeout: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(timeout):
                await turn
        except BaseException as error:
            if not turn.cancelled():  # its turn came just then
                self._leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise TimeoutError("timed out: all connections are in use") from None
            raise

    def _leave(self) -> None:
        """The place goes to who waits first."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                return turn.set_result(None)
        self._free += 1
        return None

    async def _connect(self, until: float) -> "Connection":
        self._check()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(until - time.monotonic()):
                connected = await self._reach(loop)
                name = self._host.rstrip(".") if self._tls else None
                _, made = await loop.create_connection(
                    lambda: Connection(loop, self._lost), sock=connected, ssl=self._tls, server_hostname=name
                )
        except TimeoutError as error:
            raise TimeoutError(str(error) or "timed out") from None
        if self.closed:
            made.close()
        self._check()
        self._open.add(made)
        return made

    async def _reach(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        async with asyncio.timeout(protocol.CONNECT_S):
            return await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1, loop=loop)

    def _check(self) -> None:
        if self.closed:
            raise Broken("its connections were closed")

    def _lost(self, connection: "Connection") -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


class Connection(asyncio.Protocol):
    """It carries one request at a time. `lost` is called as soon as it ends, perhaps twice."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[["Connection"], None]) -> None:
        self.idle_since = 0.0  # by time.monotonic(), as the other times here
        self._loop = loop
        self._lost = lost
        self._reader = ReplyReader()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._until = 0.0
        self._looks_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def reusable(self) -> bool:
        """May it carry another request? Its peer may have answered before it had all of the last one."""
        transport = self._transport
        return self._reader.reusable and transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def silent(self) -> bool:
        """Is it open and silent, as it should be between two calls? A loop that was held up has not read its end."""
        connected = self._transport.get_extra_info("socket") if self._transport is not None else None
        if connected is None:
            return False
        if not hasattr(select, "poll"):  # Windows has none
            return not select.select([connected], [], [], 0)[0]
        look = select.poll()
        look.register(connected.fileno(), select.POLLIN)
        return not look.poll(0)

    async def ask(self, request: bytes, until: float) -> Reply:
        """Returns the reply. Raises OSError, TimeoutError at `until`."""
        if self._transport is None:
            raise Broken("the connection was closed before the request")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("an AsyncClient belongs to the event loop that uses it first: make one for each")
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._answer = answer
        self._until = until
        if self._timer is None or until < self._looks_at:
            self._look_at(until)
        self._transport.write(request)
        return await answer

    def close(self) -> None:
        """What is under way is given up, and what has not gone out never will."""
        self._lost(self)
        self._fail(Broken("its connections were closed"))
        if self._transport is not None:
            self._transport.abort()

    # ── what the loop calls ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody has asked
            return self.close()
        try:
            self._found(self._reader.feed(data))
        except Broken as error:
            self._fail(error)
        return None

    def eof_received(self) -> None:
        self._lost(self)
        if self._answer is not None:
            try:
                self._found(self._reader.end())
            except Broken as error:
                self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._fail(error if isinstance(error, OSError) else Broken(str(error or "the connection was closed")))
        self._lost(self)

    def _found(self, reply: Reply | None) -> None:
        answer = self._answer
        if reply is not None and answer is not None:
            self._answer = None
            if not answer.done():
                answer.set_result(reply)

    def _fail(self, error: OSError) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _look_at(self, at: float) -> None:
        """One timer serves one call after the other: it is put off when it rings too early, not made anew for each."""
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = at
        self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if time.monotonic() < self._until:
            self._look_at(self._until)
        else:
            self._fail(TimeoutError("timed out"))
