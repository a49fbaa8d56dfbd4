"""Coroutines share requests. Each lane has a task that sends: a caller that is cancelled takes nobody with it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mqueue import wire
from mqueue.client import protocol, sharing
from mqueue.client.protocol import Call
from mqueue.client.sharing import Caller, Lane, LaneKey
from mqueue.errors import MQueueError, Unavailable


class AsyncSharing:
    """`call` sends a request, repeating it as its client would, and gives the ids. An AsyncSharing
    belongs to one event loop.
    """

    def __init__(self, call: Callable[[Call[list[int]]], Awaitable[list[int]]], *, safe_retries: bool) -> None:
        self._call = call
        self._safe_retries = safe_retries
        self._lanes: dict[LaneKey, Lane] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def enqueue(self, item: wire.EnqueueItem) -> int:
        """Returns its id. Raises what the broker says of it, or of the request that it went with."""
        if self._closed:
            raise Unavailable(protocol.CLOSED)
        answer = asyncio.Event()
        caller = Caller(protocol.packed(item), answer.set)
        lane = sharing.find_lane(self._lanes, sharing.lane_key(item))
        lane.waiting.append(caller)
        if lane.leader is None:
            lane.leader = task = asyncio.get_running_loop().create_task(self._send_all(lane))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        try:
            await answer.wait()
        finally:
            if not caller.ended and caller in lane.waiting:  # cancelled
                lane.waiting.remove(caller)
        return caller.result()

    async def close(self) -> None:
        """Returns when all who had come have their answers."""
        self._closed = True
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send_all(self, lane: Lane) -> None:
        try:
            while lane.waiting:
                await self._send(lane, lane.take())
        finally:
            lane.leader = None
            self._give_up(list(lane.waiting))
            lane.waiting.clear()

    async def _send(self, lane: Lane, callers: list[Caller]) -> None:
        todo: list[Sequence[Caller]] = [callers]
        try:
            while todo:
                part = todo.pop()
                try:
                    call = protocol.enqueue_packed([c.item for c in part], keyed=lane.keyed, safe_retries=self._safe_retries)
                    ids = await self._call(call)
                except MQueueError as error:
                    todo += sharing.again(part, error, keyed=lane.keyed)
                else:
                    sharing.answered(part, ids)
        finally:
            self._give_up([caller for caller in callers if not caller.ended])
            for caller in callers:
                caller.wake()

    def _give_up(self, callers: list[Caller]) -> None:
        """These callers get no answer, since the task that sends is ending."""
        sharing.refused(callers, Unavailable("the task that sent it was cancelled: unknown whether it was enqueued"))
        for caller in callers:
            caller.wake()
