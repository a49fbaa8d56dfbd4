"""This program serves the HTTP API over a fake engine, in a process and a loop of its own (uvloop, as the broker), and
watches the turns of that loop.

It prints its URL; then each line on stdin is answered by a line of JSON: `worst` is the longest turn since the last
line, in ms of the loop's own CPU time (a busy machine does not lengthen it), `rss_mb` the most memory so far.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from http_fake import broker

BEAT_S = 0.001


class Watch:
    """Every turn that is longer than a beat lies between two beats."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._last = time.thread_time()
        self._loop = asyncio.get_running_loop()
        self._beat()

    def _beat(self) -> None:
        now = time.thread_time()
        self.worst_s = max(self.worst_s, now - self._last)
        self._last = now
        self._loop.call_later(BEAT_S, self._beat)

    def told(self) -> dict[str, float]:
        worst, self.worst_s = self.worst_s, 0.0
        return {"worst": worst * 1000, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


async def serve() -> None:
    async with broker() as b:
        b.engine.calls = Forgetful()
        watch = Watch()
        print(b.server.url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(watch.told()), flush=True)


class Forgetful(list[Any]):
    """The calls of the engine, which nobody asks for here: they would be kept for ever."""

    def append(self, call: Any) -> None:
        pass


class Watched:
    """The program as a test has it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def told(self) -> dict[str, float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())  # type: ignore[no-any-return]


@contextmanager
def watched() -> Iterator[Watched]:
    """Runs it."""
    helpers = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [helpers, os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout is not None
        try:
            yield Watched(process, process.stdout.readline().strip())
        finally:
            process.kill()


if __name__ == "__main__":
    uvloop.run(serve())
