"""Callers that enqueue at once share a request. This module decides who goes together, and what a refusal means for
each; it has no I/O and no threads.

A *lane* holds the callers that may go together. All are of one namespace, so that nobody is refused for the quota or
the missing right of another; and all have an idempotency key of their own, or none has. While one request of a lane is
under way the next gathers: a lone caller never waits.

A request without keys of its own gets one (`Idempotency-Key`), which belongs to exactly these messages: it is repeated
as it is. The same messages in another combination would need another key, so a batch is only divided after a refusal
that changed nothing, or where each message has its own key.
"""

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field

from mqueue import message as m
from mqueue import wire
from mqueue.client import protocol
from mqueue.errors import InFlight, Invalid, KeyReused, MQueueError, TooLarge, Unavailable

LINGER_S = 0.001  # for callers that shared the last request and are not back yet
LANES_KEPT = 64  # beyond that, idle ones are forgotten
OF_AN_ITEM = (Invalid, KeyReused, TooLarge)  # refusals that changed nothing

LaneKey = tuple[str, bool]  # namespace; have its callers keys of their own?


@dataclass(slots=True, eq=False)
class Caller:
    """It is one item on its way. `wake` is called once `id` or `error` is there."""

    item: bytes
    wake: Callable[[], object]
    id: int | None = None
    error: MQueueError | None = None

    @property
    def ended(self) -> bool:
        return self.id is not None or self.error is not None

    def result(self) -> int:
        if self.error is not None:
            raise self.error
        assert self.id is not None
        return self.id


@dataclass(slots=True, eq=False)
class Lane:
    """`leader` sends for all, or is about to; there is one while anybody waits. `expected`: how many
    shared the last request.
    """

    keyed: bool
    waiting: deque[Caller] = field(default_factory=deque)
    leader: object | None = None
    expected: int = 1

    def take(self) -> list[Caller]:
        """Returns the next request's callers: those who came first, at least one."""
        callers: list[Caller] = []
        size = 0
        while self.waiting and len(callers) < m.BATCH_MAX:
            size += len(self.waiting[0].item)
            if callers and size > protocol.BATCH_BYTES:
                break
            callers.append(self.waiting.popleft())
        self.expected = len(callers)
        return callers


def lane_key(item: wire.EnqueueItem) -> LaneKey:
    return item.namespace, bool(item.idempotency_key)


def find_lane(lanes: dict[LaneKey, Lane], key: LaneKey) -> Lane:
    """Returns the lane of that key, made if need be; idle ones are forgotten when there are many."""
    lane = lanes.get(key)
    if lane is None:
        if len(lanes) >= LANES_KEPT:
            for idle in [known for known, each in lanes.items() if each.leader is None]:
                del lanes[idle]
        lane = lanes[key] = Lane(keyed=key[1])
    return lane


def answered(callers: Sequence[Caller], ids: Sequence[int]) -> None:
    if len(ids) != len(callers):
        return refused(callers, Unavailable(f"{len(ids)} ids for {len(callers)} messages"))
    for caller, id in zip(callers, ids, strict=True):
        caller.id = id
    return None


def refused(callers: Sequence[Caller], error: MQueueError) -> None:
    """Each gets an error of its own to raise."""
    for caller in callers:
        caller.error = copy(error)


def divided(callers: Sequence[Caller], error: MQueueError, *, keyed: bool) -> list[Sequence[Caller]]:
    """Returns what is sent again after `error`, the last part first: the one to blame by itself, so that the error it
    gets is its own, then the others.

    Where nobody is named, they are halves. If it is empty, the error is everybody's. InFlight without keys of their own
    (`keyed`) is about this very request: its messages may exist already, and would exist twice under other keys.
    """
    if len(callers) == 1 or not isinstance(error, (*OF_AN_ITEM, InFlight) if keyed else OF_AN_ITEM):
        return []
    if error.item is not None and 0 <= error.item < len(callers):
        blamed = error.item
        return [part for part in ([*callers[:blamed], *callers[blamed + 1 :]], callers[blamed : blamed + 1]) if part]
    half = len(callers) // 2
    return [callers[:half], callers[half:]]


def again(callers: Sequence[Caller], error: MQueueError, *, keyed: bool) -> list[Sequence[Caller]]:
    """Returns the parts of `divided`. Where there are none, the callers are refused."""
    parts = divided(callers, error, keyed=keyed)
    if not parts:
        refused(callers, error)
    return parts
