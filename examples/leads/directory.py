"""The directory of companies is a server to try things on: HTTP on loopback, so many requests a second, 429 beyond."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler

from examples.loopback import Loopback

RATE = 20  # requests in WINDOW_S
WINDOW_S = 0.5


class Directory(Loopback):
    """It serves at `url` within a `with`. `answered` and `refused` count its requests."""

    def __init__(self) -> None:
        self.answered = self.refused = 0
        self._lock = threading.Lock()
        self._window = self._used = 0

        class Page(_Page):
            directory = self

        super().__init__(Page)
        self.url = f"http://127.0.0.1:{self.port}"

    def admit(self) -> bool:
        """Is there room for one more request in this window of WINDOW_S?"""
        with self._lock:
            window = int(time.monotonic() / WINDOW_S)
            if window != self._window:
                self._window, self._used = window, 0
            self._used += 1
            admitted = self._used <= RATE
            self.answered += admitted
            self.refused += not admitted
            return admitted


class _Page(BaseHTTPRequestHandler):
    directory: Directory

    def do_GET(self) -> None:
        domain = self.path.rpartition("/")[2]
        if not self.directory.admit():
            self._answer(429, {"retry_after": WINDOW_S})
        elif domain.startswith("unknown"):
            self._answer(404, {})
        else:
            self._answer(200, {"company": domain.partition(".")[0].title(), "employees": sum(domain.encode()) % 500})

    def log_message(self, format: str, *args: object) -> None:
        """The terminal is left alone."""

    def _answer(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
