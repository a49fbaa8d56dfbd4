"""A broker whose loop is watched: this program runs the command behind it, `python -m mqueue.cli ...`, in its own
process, and writes down each turn of the loop that takes long, in ms of the CPU time of its thread (a busy machine does
not lengthen it).
"""

import asyncio
import os
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from unittest import mock

BEAT_S = 0.001
LONG_S = 0.01
WRITES = "LOOP_WATCH"  # the environment's name of the file


class LoopWatch:
    """What a test does with it: a broker started with `env` by `under` writes down its turns."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "turns"
        self._file.touch()
        self._read = 0
        self.env = {WRITES: str(self._file)}
        self.under = (sys.executable, __file__)

    def worst_ms(self) -> float:
        """Returns the longest turn since this was last asked."""
        with self._file.open() as file:
            file.seek(self._read)
            turns = [float(line) for line in file]
            self._read = file.tell()
        return max(turns, default=0.0)


async def _watched(what: Coroutine[Any, Any, int]) -> int:
    with open(os.environ[WRITES], "a", buffering=1) as file:
        loop, last = asyncio.get_running_loop(), time.thread_time()

        def beat() -> None:
            """Every turn that is longer than a beat lies between two beats."""
            nonlocal last
            now = time.thread_time()
            if now - last > LONG_S:
                file.write(f"{(now - last) * 1000:.1f}\n")
            last = time.thread_time()
            loop.call_later(BEAT_S, beat)

        beat()
        return await what


def _main() -> None:
    import uvloop

    from mqueue.cli import main

    run = uvloop.run
    sys.argv = ["mqueue", *sys.argv[4:]]  # after python -m mqueue.cli
    with mock.patch.object(uvloop, "run", lambda what: run(_watched(what))):
        main.main()


if __name__ == "__main__":
    _main()
