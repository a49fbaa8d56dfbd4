"""Polls that wait at the broker have a name each, by which it can be asked to end them.

A worker that stops asks for that: of a poll that is cut off, a message on its way would have lost an attempt.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import uuid4

from mqueue import wire

END_S, END_AGAIN_S = 1.0, 0.2  # for polls to come back when the worker stops; until the broker is asked again


class Waits:
    """It keeps those that are under way, on the loop of the fetcher. `poll` carries the requests to end them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, poll: Callable[[wire.Poll], Awaitable[wire.Polled]]) -> None:
        self._loop = loop
        self._poll = poll
        self._ends: dict[asyncio.Task[None], wire.Poll] = {}  # each with the request that ends it
        self._ending: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, namespace: str, polling: Callable[[str], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Starts `polling(name)`, whose polls have that name."""
        name = uuid4().hex
        task = self._loop.create_task(polling(name))
        self._ends[task] = wire.Poll(namespace=namespace, end=[name])
        task.add_done_callback(self.over)
        return task

    def over(self, task: asyncio.Task[None]) -> None:
        """Its answer is there: it need not be ended."""
        self._ends.pop(task, None)

    def doubt(self) -> None:
        """They may wait in vain: each is given up."""
        for task in list(self._ends):
            self._loop.call_soon(task.cancel)  # it must have begun: nobody gives back the slots of a task that never did

    def end(self) -> None:
        """The broker is asked to end them, for END_S; then they are given up."""
        if self._ends:
            self._ending = self._loop.create_task(self._end())

    def under_way(self) -> list[asyncio.Task[None]]:
        """Gives all that is to be cancelled where nothing may be sent any more."""
        return [*self._ends, *([self._ending] if self._ending is not None else [])]

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(END_S):
                while self._ends:
                    for end in list(self._ends.values()):
                        await self._poll(end)
                    if self._ends:
                        await asyncio.wait(list(self._ends), timeout=END_AGAIN_S)
        except Exception:  # it cannot be reached
            pass
        finally:
            self.doubt()
