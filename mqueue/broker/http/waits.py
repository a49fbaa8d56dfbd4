"""Fetches end when their client hangs up, since nobody would get what they lease then; those that wait end when the
broker stops, too. The engine's call is cancelled then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mqueue.broker.http.call import ClientGone, Receive
from mqueue.broker.ports import Asks
from mqueue.errors import Unavailable

T = TypeVar("T")

WATCH_AFTER_S = 0.05  # most fetches are answered sooner, and need no watcher


class Waits:
    def __init__(self) -> None:
        self._open: set[_Wait] = set()
        self._named: dict[tuple[str, str], Asks] = {}
        self._draining = False

    def drain(self) -> None:
        """Ends all of them with 503, and lets no new one begin."""
        self._draining = True
        for wait in list(self._open):
            wait.end(_stopping())

    @contextmanager
    def named(self, namespace: str, name: str | None, asks: Asks) -> Iterator[None]:
        """Lets `enough` reach a wait of that name, if it has one."""
        if name is None:
            yield
            return
        self._named[namespace, name] = asks
        try:
            yield
        finally:
            if self._named.get((namespace, name)) is asks:
                del self._named[namespace, name]

    def enough(self, namespace: str, names: Iterable[str]) -> None:
        """Lets those that wait under these names answer with what there is."""
        for name in names:
            if (waits := self._named.get((namespace, name))) is not None:
                waits.say_enough()

    async def run(self, work: Callable[[], Awaitable[T]], receive: Receive, *, waits: bool) -> T:
        """Await `work()` in this task. The request's body must have been read. Raises ClientGone; where it waits,
        Unavailable.
        """
        if waits and self._draining:
            raise _stopping()
        task = asyncio.current_task()
        assert task is not None
        wait = _Wait(task, receive)
        if waits:
            self._open.add(wait)
        try:
            return await work()
        except asyncio.CancelledError:
            if wait.reason is None:
                raise
            raise wait.reason from None
        finally:
            self._open.discard(wait)
            wait.close()
            if wait.reason is not None:
                task.uncancel()


class _Wait:
    def __init__(self, task: asyncio.Task[object], receive: Receive) -> None:
        self.reason: Exception | None = None
        self._task = task
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._watch)

    def end(self, reason: Exception) -> None:
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    def close(self) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _watch(self) -> None:
        self._watcher = asyncio.create_task(self._until_hung_up())

    async def _until_hung_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end(ClientGone())


def _stopping() -> Unavailable:
    return Unavailable("the broker stops", retry_after=1.0)
