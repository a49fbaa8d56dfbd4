"""This carries requests over blocking connections that are kept open. A pool belongs to one process, and may be shared
by its threads.

A request is written once. A connection that the broker has closed meanwhile is noticed before; where it breaks later,
the broker may have taken the request, and the caller decides.
"""

import select
import socket
import ssl
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from mqueue.client import protocol
from mqueue.client.http1 import Reply, ReplyReader, Requests
from mqueue.client.protocol import Call

PIECE = 64 * 1024  # bytes read at a time
NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Pool:
    """It has at most `connections` open at a time: further calls wait for one within their timeout."""

    def __init__(self, url: str, token: str | None, connections: int, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._requests = Requests(url, token)
        self._host = parts.hostname or ""
        self._port = parts.port or (80 if tls is None else 443)
        self._tls = tls
        self._slots: SimpleQueue[None] = SimpleQueue()  # a semaphore, but in C
        for _ in range(connections):
            self._slots.put(None)
        self._idle: list[Connection] = []  # the one used last is the first to be used again
        self._closed = False
        weakref.finalize(self, _close_all, self._idle)  # of a client that nobody closed

    def send(self, call: Call[Any], timeout: float) -> Reply:
        """Returns the broker's answer. Raises OSError when there is none after `timeout` seconds, or the connection
        breaks.
        """
        now = time.monotonic()
        until = now + timeout
        request = self._requests.write(call.method, call.path, call.headers, call.body)
        try:
            self._slots.get(timeout=timeout)
        except Empty:
            raise TimeoutError("timed out: all connections are in use") from None
        try:
            connection = self._kept(now) or self._connect(until)
            try:
                reply = connection.ask(request, until)
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
            return reply
        finally:
            self._slots.put(None)

    def close(self) -> None:
        """Close what is open; a connection in use is closed after its call."""
        self._closed = True
        _close_all(self._idle)

    def _kept(self, now: float) -> "Connection | None":
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was first
                break
            if now - connection.idle_since < protocol.IDLE_S and connection.silent():
                return connection
            connection.close()
        return None

    def _keep(self, connection: "Connection") -> None:
        if not connection.reusable:
            return connection.close()
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if self._closed:  # by now
            self.close()
        return None

    def _connect(self, until: float) -> "Connection":
        made = connect(self._host, self._port, until)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                made.settimeout(_left(until))
                made = self._tls.wrap_socket(made, server_hostname=self._host.rstrip("."))
            return Connection(made)
        except BaseException:
            made.close()
            raise


class Connection:
    """It carries one request at a time."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.idle_since = 0.0  # by time.monotonic()
        self._socket = connected
        self._readable = _waiting(connected)
        self._pending = connected.pending if isinstance(connected, ssl.SSLSocket) else None
        self._reader = ReplyReader()
        self._whole = True  # was the last request written to its end?

    @property
    def reusable(self) -> bool:
        return self._whole and self._reader.reusable

    def silent(self) -> bool:
        """Is it open and silent, as it should be between two calls?"""
        return not self._readable(0)

    def ask(self, request: bytes, until: float) -> Reply:
        """Returns the reply. Raises OSError, TimeoutError at `until`."""
        try:
            self._write(request, until)
        except (BrokenPipeError, ConnectionResetError):
            self._whole = False  # a broker that refuses a large request may have said so before it hung up
        while True:
            if not (self._pending and self._pending()) and not self._readable(_left(until)):
                continue  # and `_left` raises
            try:
                data = self._socket.recv(PIECE)
            except NOT_YET:
                continue
            reply = self._reader.feed(data) if data else self._reader.end()
            if reply is not None:
                return reply

    def close(self) -> None:
        self._socket.close()

    def _write(self, request: bytes, until: float) -> None:
        sent = 0
        writable: Callable[[float], bool] | None = None
        while True:
            try:
                sent += self._socket.send(memoryview(request)[sent:] if sent else request)
            except NOT_YET:
                pass
            if sent == len(request):
                return
            writable = writable or _waiting(self._socket, to_write=True)
            writable(_left(until))


def _close_all(connections: list[Connection]) -> None:
    with suppress(IndexError):  # another thread may take the last one
        while True:
            connections.pop().close()


def connect(host: str, port: int, until: float) -> socket.socket:
    """Returns a connection to the first address of the name that takes one. Raises OSError."""
    failed: OSError = OSError(f"no address of {host}")
    for family, kind, number, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            made = socket.socket(family, kind, number)
        except OSError as error:
            failed = error
            continue
        try:
            made.settimeout(min(_left(until), protocol.CONNECT_S))
            made.connect(address)
            return made
        except OSError as error:
            made.close()
            failed = error
        except BaseException:
            made.close()
            raise
    raise failed


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _waiting(connected: socket.socket, *, to_write: bool = False) -> Callable[[float], bool]:
    """Returns a function that waits so many seconds at most: can the socket be read (or written) then?"""
    if hasattr(select, "poll"):  # Windows has none
        poll = select.poll()
        poll.register(connected, select.POLLOUT if to_write else select.POLLIN)
        return lambda seconds: bool(poll.poll(seconds * 1000))
    one: list[socket.socket] = [connected]
    return lambda seconds: any(select.select([], one, [], seconds) if to_write else select.select(one, [], [], seconds))
