"""It tells when the event loop is blocked, and by what: a handler that blocks it holds up every other one, and the
settles.
"""

import asyncio
import sys
import threading
import time
import traceback

import structlog

from mqueue.worker.traces import bounded

LOOK_S = 1.0  # between two looks
BLOCKED_S = 2.0

log = structlog.get_logger("mqueue.worker")


class Watchdog:
    """It looks from a thread whether the loop turns on whose thread it was made. Leases do not depend on it, nor on the
    loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._stopped = threading.Event()
        self.blocked = False  # for BLOCKED_S at least
        self._thread = threading.Thread(target=self._run, name="mqueue-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_S):
            turned = threading.Event()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # closed
                return
            if turned.wait(BLOCKED_S):
                continue
            self.blocked = True
            log.warning("event loop blocked", seconds=BLOCKED_S, stack=self._stack())
            while not turned.wait(LOOK_S):
                if self._stopped.is_set():
                    return
            self.blocked = False
            log.warning("event loop no longer blocked", seconds=round(time.monotonic() - asked, 1))

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return bounded("".join(traceback.format_stack(frame)) if frame is not None else "")
