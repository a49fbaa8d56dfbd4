"""A batch that is not full is filled by further polls.

A batch is one slot, its topic a lane of its own: the poll that brings its first messages asks for a whole batch. What
is missing then comes by more polls until `batch_wait` has passed; they take no slot, since what they bring belongs to
the batch that has one. A poll that is not answered ends the wait: the batch begins with what there is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mqueue import wire
from mqueue.worker.polling.lane import Lane
from mqueue.worker.polling.plan import Slots
from mqueue.worker.polling.waits import Waits

GATHER_S, GATHER_SHARE = 0.05, 0.1  # between two polls for a batch, at most that share of its wait: each then brings several
GATHER_LATE_S = 1.0  # an answer may be late by so much; then the batch begins without it


class Filling:
    """It fills batches, one of a lane at most.

    `fetch(request)` gives the messages that came; `gathered(lane, messages)` takes them, and says how many more the
    batch wants; `complete(lane)` begins it with what there is; `failed(lane, error)` hears that a poll was not
    answered, and `over()` that a lane may be asked again.
    """

    def __init__(
        self,
        slots: Slots,
        waits: Waits,
        fetch: Callable[[wire.Poll], Awaitable[Sequence[wire.Message]]],
        *,
        gathered: Callable[[Lane, Sequence[wire.Message]], int],
        complete: Callable[[Lane], None],
        failed: Callable[[Lane, Exception], None],
        over: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._waits = waits
        self._fetch = fetch
        self._gathered = gathered
        self._complete = complete
        self._failed = failed
        self._over = over
        self._loop = asyncio.get_running_loop()

    def came(self, lane: Lane, messages: Sequence[wire.Message]) -> None:
        """These are the first of a batch, which has its slot."""
        room = self._gathered(lane, messages) if messages else 0
        if not room:
            return
        lane.filling = True
        filling = self._waits.begin(lane.namespace, lambda name: self._fill(lane, room, name))
        filling.add_done_callback(lambda _: self._filled(lane))

    def _filled(self, lane: Lane) -> None:
        lane.filling = False
        if not self._slots.closed:
            self._complete(lane)
        self._over()  # also where it is closed: somebody may wait for the last poll to be back

    async def _fill(self, lane: Lane, room: int, name: str) -> None:
        deadline = self._loop.time() + lane.batch_wait
        try:
            while room and not self._slots.closed and (left := deadline - self._loop.time()) > 0:
                await asyncio.sleep(min(left, GATHER_S, lane.batch_wait * GATHER_SHARE))
                wait = max(0.0, deadline - self._loop.time())
                async with asyncio.timeout(wait + GATHER_LATE_S):
                    messages = await self._fetch(wire.Poll(namespace=lane.namespace, topics=lane.topics, limit=room, wait=wait, name=name))
                room = self._gathered(lane, messages)
        except Exception as error:
            self._failed(lane, error)
