"""A thread of a log's own: it runs what it is given, one after the other.

A pool's thread costs twice the processor time: each piece of work is two futures, and each end of one a chain of calls.
Here it is one future of the loop that asked.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

import structlog

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = structlog.get_logger(__name__)


class Thread:
    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()  # nothing is added behind the end
        # a process that ends in disorder does not wait for it: what it has not written was promised to nobody
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs it, and tells the loop that runs here. Cancelling stops the waiting alone. Raises RuntimeError once it
        is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                told: tuple[Callable[..., None], Any] = (_succeed, function(*args))
            except BaseException as error:
                told = (_fail, error)
            try:
                loop.call_soon_threadsafe(told[0], future, told[1])
            except RuntimeError:  # the loop has ended meanwhile: nobody waits
                pass

        self._add(run)
        return future

    def submit(self, function: Callable[[], None]) -> None:
        """Runs it; nobody waits. Raises RuntimeError once it is closed."""
        self._add(function)

    def close(self) -> None:
        """Returns when all that it was given has run. A second call waits, too."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._work.put(None)
        self._thread.join()

    def _add(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the thread is closed")
            self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("work of the log's thread failed")
            del work  # or the last one's arguments stay until the next


def _succeed(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
