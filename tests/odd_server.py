"""A server that reads whole requests, and answers each as a test says: in odd pieces, half, or not at all."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[["Line", bytes], None]  # on the line, to the request's head; what it raises ends the line

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EMPTY_LIST = OK + b"Content-Length: 2\r\n\r\n[]"


class Line:
    """One connection, as the server has it."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.gone = threading.Event()  # the client has hung up

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hang_up(self) -> None:
        raise ConnectionAbortedError

    def reset(self) -> None:
        """The client gets a reset, not an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()

    def read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._read(1)
        return head

    def read_body(self, head: bytes) -> None:
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = sum(lengths)
        while left:
            left -= len(self._read(left))

    def _read(self, size: int) -> bytes:
        data = self.socket.recv(size)
        if not data:
            self.gone.set()
            self.hang_up()
        return data


class OddServer:
    """`answers`: to the first request, the second and so on, whichever line it comes by; the last is for all others."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, early: bool = False) -> None:
        self.lines: list[Line] = []
        self.heads: list[bytes] = []
        self.ended = 0  # lines
        self.most = 0  # lines that were open together
        self._answers = answers
        self._tls = tls
        self._early = early  # it answers before it has read the body
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for line in self.lines:
            with suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._server.accept()
            except OSError:
                return
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=[connected], daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with suppress(OSError), connected if self._tls is None else self._tls.wrap_socket(connected, server_side=True) as talking:
            line = Line(talking)
            with self._lock:
                self.lines.append(line)
                self.most = max(self.most, len(self.lines) - self.ended)
            with suppress(OSError):
                while True:
                    self._turn(line)
            with self._lock:
                self.ended += 1

    def _turn(self, line: Line) -> None:
        head = line.read_head()
        if not self._early:
            line.read_body(head)
        with self._lock:
            self.heads.append(head)
            answer = self._answers[min(len(self.heads), len(self._answers)) - 1]
        answer(line, head)
        if self._early:
            line.read_body(head)


@contextmanager
def odd_server(*answers: Answer, tls: ssl.SSLContext | None = None, early: bool = False) -> Iterator[OddServer]:
    made = OddServer(*answers, tls=tls, early=early)
    try:
        yield made
    finally:
        made.close()


def says(data: bytes) -> Answer:
    return lambda line, head: line.send(data)


def hangs_up(line: Line, head: bytes) -> None:
    line.hang_up()


def says_and_hangs_up(data: bytes) -> Answer:
    def answer(line: Line, head: bytes) -> None:
        line.send(data)
        line.hang_up()

    return answer


def says_and_resets(data: bytes) -> Answer:
    def answer(line: Line, head: bytes) -> None:
        line.send(data)
        line.reset()

    return answer
