"""What was leased for nobody is given back at once, as if it had not been delivered: the client hung up, or another
shard answered sooner.

A call to Redis that is under way cannot be taken back. It goes on beside the fetch that was cancelled, and what it
leases is released. Of each shard at most LATE_MAX such calls go on: past that it is left out of fetches over several.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from mqueue.errors import MQueueError
from mqueue.message import BATCH_MAX, Delivery, Settle, Verdict

T = TypeVar("T")

LATE_MAX = 64
SILENT_S = 0.5  # a call that takes longer is one of a shard that does not answer

logger = structlog.get_logger(__name__)


class GiveBack:
    """`settle`: the settler's."""

    def __init__(self, settle: Callable[[Sequence[Settle]], Awaitable[list[Verdict]]]) -> None:
        self._settle = settle
        self._late: defaultdict[int, dict[asyncio.Task[Any], float]] = defaultdict(dict)  # by shard: when each began
        self._tasks: set[asyncio.Task[Any]] = set()

    def crowded(self, shard: int) -> bool:
        """Do as many calls of this shard go on for nobody as may?"""
        return len(self._late[shard]) >= LATE_MAX

    def silent(self, shard: int) -> bool:
        """Has this shard a call unanswered that was given up, and that began a while ago?"""
        began = min(self._late[shard].values(), default=float("inf"))
        return began < asyncio.get_running_loop().time() - SILENT_S

    async def keep(self, shard: int, call: Coroutine[Any, Any, T], deliveries: Callable[[T], Sequence[Delivery]]) -> T:
        """Awaits a call that leases. Where this is cancelled, the call goes on, and its `deliveries` are given back."""
        task = asyncio.ensure_future(call)
        began = asyncio.get_running_loop().time()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                self._late[shard][task] = began
                task.add_done_callback(lambda task: self._came_late(shard, task, deliveries))
            raise

    def _came_late(self, shard: int, task: "asyncio.Task[T]", deliveries: Callable[[T], Sequence[Delivery]]) -> None:
        del self._late[shard][task]
        if not task.cancelled() and task.exception() is None:
            self.now(deliveries(task.result()))

    def now(self, deliveries: Sequence[Delivery]) -> None:
        """Releases them, beside the caller."""
        if deliveries:
            task = asyncio.create_task(self._release(deliveries))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        for at in range(0, len(deliveries), BATCH_MAX):
            settles = [Settle(d.id, d.namespace, d.topic, "release", d.receipt) for d in deliveries[at : at + BATCH_MAX]]
            try:
                await self._settle(settles)
            except MQueueError as error:  # they come back with their leases
                logger.warning("leased for nobody, and not given back", messages=len(settles), reason=error.detail)
