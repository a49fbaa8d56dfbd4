"""It hears which jobs somebody has cancelled: one call a namespace set stays open while jobs run.

A message may be cancelled before its delivery is here, so the last ids heard are remembered. What was asked for while
no call was open comes with the next one, which goes on where the last one ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.errors import Invalid
from mqueue.worker.polling.pause import pause_s
from mqueue.worker.traces import summary

WAIT_S = 20.0
KEPT = 10_000  # ids

log = structlog.get_logger("mqueue.worker")


class Cancelled(Protocol):
    def __call__(self, namespaces: Sequence[str], *, since: str | None = None, wait: float = 0.0) -> Awaitable[wire.Cancelled]: ...


class Cancellations:
    """It listens on the loop that made it. `busy()`: does a job run? `told(ids)` is called with the ids heard of."""

    def __init__(
        self,
        ask: Cancelled,
        namespaces: Sequence[str],
        busy: Callable[[], bool],
        told: Callable[[Sequence[int]], None],
        jitter: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._sets = [namespaces[start : start + m.TOPICS_MAX] for start in range(0, len(namespaces), m.TOPICS_MAX)]
        self._busy = busy
        self._told = told
        self._jitter = jitter
        self._heard: dict[int, None] = {}
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def has(self, id: int) -> bool:
        """Has this message been cancelled?"""
        return id in self._heard

    def listen(self) -> None:
        """A job has begun."""
        self._work.set()
        if not self._tasks:
            self._tasks = [asyncio.get_running_loop().create_task(self._listen(namespaces)) for namespaces in self._sets]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _listen(self, namespaces: Sequence[str]) -> None:
        since: str | None = None
        failed = 0
        while True:
            if not self._busy():
                self._work.clear()
                await self._work.wait()
            try:
                heard = await self._ask(namespaces, since=since, wait=WAIT_S)
            except Exception as error:  # no error may end this loop: nobody could cancel a job
                failed += 1
                if failed == 1:
                    log.warning("cannot hear of cancelled jobs, trying on", error=summary(error))
                if isinstance(error, Invalid):
                    since = None
                await asyncio.sleep(pause_s(failed, getattr(error, "retry_after", None), self._jitter()))
                continue
            failed, since = 0, heard.since
            self._heard.update(dict.fromkeys(heard.ids))
            while len(self._heard) > KEPT:
                del self._heard[next(iter(self._heard))]
            self._told(heard.ids)
