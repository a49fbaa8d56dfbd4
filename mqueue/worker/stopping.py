"""A worker stops without losing any job.

It fetches no more, and what has not begun goes back at once. What runs has the grace; then it is cancelled (on the
loop), killed (in a process) or left (in a thread) and goes back. Everything is settled; then the process ends.

The first request to stop starts the grace period, the second ends it at once. A worker that stops by itself, having
run for long enough, has no grace period: it waits for what runs until it is told to stop.
"""

import asyncio
import time
from collections.abc import Callable, Set

from mqueue.worker.polling.fetcher import Fetcher
from mqueue.worker.running.interrupts import Interrupts
from mqueue.worker.tasks.job import Job

CANCEL_S = 1.0  # for cancelled handlers to clean up
SETTLE_S = 10.0  # for the last settles, as far as the grace lasts
HURRY_S = 1.0  # for the last settles, once it is over


class Stopping:
    """It holds what a worker was told of its end, as events of its loop. `began`: fetch no more. `told`: from now on
    the grace counts. `hurry`: it is over. `idle`: no job runs any more.
    """

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.told = asyncio.Event()
        self.hurry = asyncio.Event()
        self.idle = asyncio.Event()
        self._told_at: float | None = None

    def left_s(self, grace: float) -> float:
        """Returns how many seconds of the grace are left; all of it until it is told."""
        return grace if self._told_at is None else self._told_at + grace - time.monotonic()

    def tell(self) -> None:
        """Somebody says so: the first time it means stop, the second time now."""
        if self.told.is_set():
            self.hurry.set()
        self.retire()

    def retire(self) -> None:
        """Somebody says stop; said again it means no more."""
        if self._told_at is None:
            self._told_at = time.monotonic()
        self.told.set()
        self.began.set()

    def recycle(self) -> None:
        """Nobody is waiting for the end: jobs may take their time."""
        self.began.set()


class WindingDown:
    """It ends what the worker still has, once it fetches no more. `jobs`: those that run. `release(job)` gives one up.

    `cancelled`: handlers that were told to end; threads that they waited for may go on. `cut_off`: those that still ran
    when they were given up.
    """

    def __init__(self, stopping: Stopping, jobs: Set[Job], interrupts: Interrupts, release: Callable[[Job], None], grace: float) -> None:
        self._stopping = stopping
        self._jobs = jobs
        self._interrupts = interrupts
        self._release = release
        self._grace = grace
        self.cancelled = 0
        self.cut_off = 0

    async def run(self, fetcher: Fetcher) -> int:
        """Waits until all is settled, or cannot be. Returns how many settles could not be told."""
        await self._quiet(None, self._stopping.told)
        if self._jobs:
            await self._quiet(max(0.0, self._stopping.left_s(self._grace)), self._stopping.hurry)
            self.cancel()
            await self._quiet(CANCEL_S)
        for job in list(self._jobs):
            self._give_up(job)
        return await self._settle_all(fetcher)

    def cancel(self) -> None:
        """Handlers are told to end now, or given up where they cannot be told."""
        for job in list(self._jobs):
            if self._interrupts.stopping(job):
                self.cancelled += 1
            else:
                self._give_up(job)

    def _give_up(self, job: Job) -> None:
        self.cut_off += 1
        self._release(job)

    async def _quiet(self, patience: float | None, *interrupts: asyncio.Event) -> None:
        """Waits until no job runs, or an event is there, for `patience` seconds at most (None: as long as it takes)."""
        if not self._jobs:
            return
        self._stopping.idle.clear()
        waits = {asyncio.ensure_future(event.wait()) for event in (self._stopping.idle, *interrupts)}
        await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _settle_all(self, fetcher: Fetcher) -> int:
        """Tells the last outcomes: while the grace lasts, and for HURRY_S at least."""
        draining = asyncio.create_task(fetcher.drain(SETTLE_S))
        for said in (self._stopping.told, self._stopping.hurry):
            waiting = asyncio.create_task(said.wait())
            await asyncio.wait([draining, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not draining.done():
                fetcher.hurry(HURRY_S if said is self._stopping.hurry else max(HURRY_S, self._stopping.left_s(self._grace)))
        return await draining
