"""A line says how far it is: in place on a terminal, else one a second."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

IN_PLACE_S = 0.1
LINES_S = 1.0


class Progress:
    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._in_place = stream.isatty()
        self._next = 0.0
        self._width = 0

    def show(self, line: Callable[[], str]) -> None:
        """Shows the line at most as often as one can read it; only then is it asked for."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (IN_PLACE_S if self._in_place else LINES_S)
        self._write(line())

    def end(self, line: str) -> None:
        """Shows the last state, for good."""
        self._write(line)
        if self._in_place:
            self._stream.write("\n")
        self._width, self._next = 0, 0.0
        self._stream.flush()

    def _write(self, line: str) -> None:
        if self._in_place:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
