"""Threads share requests. One of those that wait leads: it sends for all, then hands on to who came first meanwhile.

There is no extra thread: a lone caller sends by itself, and what ends a leader ends nobody else.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mqueue import wire
from mqueue.client import protocol, sharing
from mqueue.client.protocol import Call
from mqueue.client.sharing import Caller, Lane, LaneKey
from mqueue.errors import MQueueError, Unavailable


@dataclass(slots=True, eq=False)
class Gate:
    """`wait` returns once `open` was called. It is a bare lock, since callers pass every millisecond."""

    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._lock.acquire()

    def open(self) -> None:
        """Call it once for each `wait`."""
        self._lock.release()

    def wait(self, timeout: float = -1) -> bool:
        return self._lock.acquire(timeout=timeout)


class Sharing:
    """`call` sends a request, repeating it as its client would, and gives the ids. A Sharing belongs to one process."""

    def __init__(self, call: Callable[[Call[list[int]]], list[int]], *, safe_retries: bool) -> None:
        self._call = call
        self._safe_retries = safe_retries
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._lanes: dict[LaneKey, Lane] = {}
        self._full: dict[Lane, Gate] = {}  # of lanes whose leader lingers
        self._closed = False

    def enqueue(self, item: wire.EnqueueItem) -> int:
        """Returns its id. Raises what the broker says of it, or of the request that it went with."""
        gate = Gate()
        caller = Caller(protocol.packed(item), gate.open)
        lane: Lane | None = None
        try:
            with self._lock:
                if self._closed:
                    raise Unavailable(protocol.CLOSED)
                lane = sharing.find_lane(self._lanes, sharing.lane_key(item))
                lane.waiting.append(caller)
                if lane.leader is None:
                    lane.leader = caller
                elif len(lane.waiting) >= lane.expected and (full := self._full.pop(lane, None)) is not None:
                    full.open()
            if lane.leader is not caller:
                gate.wait()  # until it has an answer, or leads
            if lane.leader is caller:
                self._lead(lane, caller)
        finally:
            if lane is not None:
                self._leave(lane, caller)
        return caller.result()

    def close(self) -> None:
        """Returns when all who had come have their answers."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: all(lane.leader is None for lane in self._lanes.values()))

    def _lead(self, lane: Lane, leader: Caller) -> None:
        self._linger(lane)
        with self._lock:
            callers = lane.take()
        todo: list[Sequence[Caller]] = [callers]
        try:
            while todo:
                part = todo.pop()
                try:
                    ids = self._call(protocol.enqueue_packed([c.item for c in part], keyed=lane.keyed, safe_retries=self._safe_retries))
                except MQueueError as error:
                    todo += sharing.again(part, error, keyed=lane.keyed)
                else:
                    sharing.answered(part, ids)
        finally:  # whatever ended this thread: the others go on
            left = [caller for caller in callers if not caller.ended]
            sharing.refused(left, Unavailable("the thread that sent it for all was interrupted: unknown whether it was enqueued"))
            for caller in callers:
                if caller is not leader:
                    caller.wake()

    def _linger(self, lane: Lane) -> None:
        """Waits until as many are back as shared the last request, or for LINGER_S."""
        full = Gate()
        with self._lock:
            if len(lane.waiting) >= lane.expected:
                return
            self._full[lane] = full
        full.wait(sharing.LINGER_S)
        with self._lock:
            self._full.pop(lane, None)

    def _leave(self, lane: Lane, caller: Caller) -> None:
        with self._lock:
            if not caller.ended and caller in lane.waiting:  # interrupted
                lane.waiting.remove(caller)
            if lane.leader is not caller:
                return
            following = lane.waiting[0] if lane.waiting else None
            lane.leader = following
            if following is not None:
                following.wake()
            else:
                self._idle.notify_all()
