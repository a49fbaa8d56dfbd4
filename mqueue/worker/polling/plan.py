"""This decides which poll goes out next, and when to look again: from the slots, the lanes and what is to be settled.

Nothing here sends, waits or changes anything; `fetcher.py` does.

A *quick* poll brings settles and asks, without waiting, for as many messages as there are free slots. It goes out when
a quarter of the slots has ended, when nothing runs any more, or COLLECT_S after the first settle: so quick jobs share
requests, and slow ones are settled at once. A lane that gave all it was asked for is *hungry* (there may be more) and
is asked again so.

A *waiting* poll goes out for a lane that gave less: it has the lane's free slots, carries no settles, and comes back
with the first message. What ends meanwhile is settled by quick polls beside it.

Slots asked for are taken until the answer is there, so the worker never holds a message that it cannot start.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mqueue import message as m
from mqueue.worker.polling.lane import Lane
from mqueue.worker.polling.settles import Settles

COLLECT_S = 0.0015
QUICK_MAX = 4  # quick polls under way
WAIT_S = 20.0
WAIT_SHARED_S = 1.0  # where lanes must take turns for too few slots
RETRY_WAIT_S = 0.01  # after a poll that failed: the next one tells soon whether the broker is back
REST_S = 0.05  # after a waiting poll that brought nothing


@dataclass(slots=True)
class Slots:
    """A worker has so many slots: `running` have a job or a batch, `asked` may be filled by polls under way.

    `closed`: no new message is wanted. `most`: so many are used for now (`pace.py`).
    """

    size: int
    running: int = 0
    asked: int = 0
    closed: bool = False
    most: int = field(init=False)
    quarter: int = field(init=False)

    def __post_init__(self) -> None:
        self.most, self.quarter = self.size, max(1, self.size // 4)

    def free(self, unsettled: int) -> int:
        """Counts the slots for new messages. Settles that pile up (the broker does not take them) count, so that they
        stay bounded.
        """
        return 0 if self.closed else max(0, self.most - self.running - self.asked - max(0, unsettled - self.size))


@dataclass(frozen=True, slots=True)
class Fetch:
    """A poll asks for up to `limit` messages of this lane. `wait`: seconds, 0 in a quick poll."""

    lane: Lane
    limit: int
    wait: float = 0.0


def quick_due(now: float, slots: Slots, lanes: Iterable[Lane], settles: Settles, quick: int, collect_until: float) -> bool:
    """Is a quick poll to go out now? `quick`: those under way. `collect_until`: what ended shares a poll until then."""
    if quick >= QUICK_MAX:
        return False
    due = settles.due(now)
    if due and (due >= slots.quarter or slots.running == 0 or now >= collect_until or slots.closed):
        return True
    if not (free := slots.free(len(settles))):
        return False
    hungry = [lane for lane in lanes if lane.hungry and lane.idle and now >= lane.pause.until]
    return bool(hungry) and (free >= slots.quarter or any(now >= lane.rest_until for lane in hungry))


def next_fetch(free: int, lanes: Iterable[Lane]) -> Fetch | None:
    """Chooses what a quick poll asks for: the lane whose turn it is, the hungry first, with its share of the free
    slots.
    """
    if not free:
        return None
    may_be_asked = [
        lane for lane in lanes if not lane.waiting and not lane.filling and not (lane.batch and lane.asked) and not lane.pause.failed
    ]
    chosen = [lane for lane in may_be_asked if lane.hungry] or may_be_asked
    return Fetch(chosen[0], chosen[0].batch or _share(free, len(chosen))) if chosen else None


def next_wait(now: float, free: int, slots: Slots, lanes: Collection[Lane]) -> Fetch | None:
    """Chooses the waiting poll that is to go out now: for the first lane that has none and is not hungry."""
    lane = next((lane for lane in lanes if _may_wait(lane, now)), None) if free else None
    if lane is None:
        return None
    others = sum(1 for other in lanes if other is not lane and not other.waiting)
    spare = 1 if len(lanes) > 1 else 0  # so that a lane with much to do finds slots to begin with
    wait = WAIT_S if len(lanes) < slots.size or len(lanes) == 1 else WAIT_SHARED_S
    return Fetch(lane, lane.batch or _share(free, 1 + others + spare), RETRY_WAIT_S if lane.pause.failed else wait)


def next_look(now: float, free: int, lanes: Iterable[Lane], settles: Settles, quick: int, collect_until: float) -> float:
    """Says when the next poll may be due, if nothing happens before; infinite: not by time alone."""
    times: list[float] = []
    if quick < QUICK_MAX and settles:
        times.append(max(now, collect_until, settles.due_at()))
    if free:
        times += [max(now, lane.rest_until, lane.pause.until) for lane in lanes if lane.idle and not (lane.hungry and quick >= QUICK_MAX)]
    return min(times, default=float("inf"))


def rest_s(fetch: Fetch, came: int, running: int) -> float:
    """Says for how long its lane is left alone after a poll that brought so many messages."""
    return REST_S if fetch.wait and not came else COLLECT_S if running else 0.0


def _may_wait(lane: Lane, now: float) -> bool:
    return lane.idle and not lane.hungry and now >= max(lane.rest_until, lane.pause.until)


def _share(free: int, lanes: int) -> int:
    return min(max(1, free // lanes), m.BATCH_MAX)
