"""Fetches for free slots, and settles what ended: both ride in one `POST /poll`.

A *quick* poll brings settles and asks, without waiting, for as many messages as there are free slots. It goes out when a
quarter of the slots has ended, when nothing runs any more, or COLLECT_S after the first settle: so quick jobs share requests,
and slow ones are settled at once. A lane that gave all it was asked for is *hungry* (there may be more) and is asked again so.

A *waiting* poll goes out for a lane that gave less: it has the lane's free slots, carries no settles, and comes back with the
first message. What ends meanwhile is settled by quick polls beside it.

Slots asked for are taken until the answer is there, so the worker never holds a message that it cannot start. Without an answer
the settles go back in line and the next poll comes after a growing pause. (A settle sent twice is `gone` or `stale`: harmless.)
Settles that cannot be sent, or are refused, go again one by one, so that only the bad one is given up.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.errors import Forbidden, Invalid, MQueueError, NotFound, TooLarge, Unauthorized, Unavailable
from mqueue.worker import outcome
from mqueue.worker.job import Job

COLLECT_S = 0.0015
QUICK_MAX = 4  # quick polls under way
WAIT_S = 20.0
WAIT_SHARED_S = 1.0  # where lanes must take turns for too few slots
REST_S = 0.05  # after a waiting poll that brought nothing
RESULT_BYTES = 4 * 1024 * 1024  # of results in one poll; one is always sent
PAUSE_S = 0.1
PAUSE_MAX_S = 5.0
PAUSE_ASKED_MAX_S = 30.0  # as long as the broker may ask for
UNSENDABLE = (Invalid, TooLarge, TypeError, ValueError, OverflowError)  # refused, or not even encoded: so for ever

log = structlog.get_logger("mqueue.worker")

End = tuple[wire.PollSettle, Job | None]  # no job: the message never became one


@dataclass(slots=True, eq=False)
class Lane:
    """Topics that one poll can name: of one namespace, at most TOPICS_MAX."""

    namespace: str
    topics: list[str]
    hungry: bool = False
    waiting: bool = False
    asked: int = 0  # quick polls under way that fetch
    rest_until: float = 0.0  # loop time: no waiting poll before


def lanes(topics: Sequence[m.TopicName]) -> list[Lane]:
    by_namespace: dict[str, list[str]] = {}
    for name in topics:
        by_namespace.setdefault(name.namespace, []).append(name.topic)
    return [
        Lane(namespace, names[start : start + m.TOPICS_MAX])
        for namespace, names in by_namespace.items()
        for start in range(0, len(names), m.TOPICS_MAX)
    ]


def pause_s(failed: int, asked: float | None, jitter: float) -> float:
    """Seconds until the next poll after `failed` (≥ 1) in a row; `asked`: the broker's Retry-After; `jitter` in [0, 1)."""
    grown: float = min(PAUSE_S * 2 ** min(failed - 1, 10), PAUSE_MAX_S) * (1.0 + jitter) / 2
    return max(grown, min(asked or 0.0, PAUSE_ASKED_MAX_S))


class Fetcher:
    """Runs on the loop that made it. `arrived(message)` must lead to one `finish`, its settle to one `settled(job, status)`.

    `status`: the broker's verdict, None where it would not take the settle. `refused(error)`: it does not take the token.
    """

    def __init__(
        self,
        poll: Callable[[wire.Poll], Awaitable[wire.Polled]],
        lanes: Sequence[Lane],
        concurrency: int,
        *,
        arrived: Callable[[wire.Message], None],
        settled: Callable[[Job | None, m.Verdict | None], None],
        refused: Callable[[MQueueError], None],
        jitter: Callable[[], float],
    ) -> None:
        self._poll = poll
        self._lanes = deque(lanes)
        self._concurrency = concurrency
        self._quarter = max(1, concurrency // 4)
        self._arrived = arrived
        self._settled = settled
        self._refused = refused
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._asked = 0  # slots that polls under way may fill
        self._sent = 0  # settles under way
        self._ends: deque[End] = deque()
        self._singly = 0  # so many of the next ends go one by one
        self._collect_until = 0.0
        self._quick: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")
        self._failed = 0
        self._resume_at = 0.0
        self._greeted = False
        self._closed = False
        self._drained = asyncio.Event()

    # ── what the runtime calls ──

    def start(self) -> None:
        self._look_by(self._loop.time())

    def finish(self, settle: wire.PollSettle | None, job: Job | None) -> None:
        """A slot is free again. `settle` None: the lease was lost, there is nothing to say."""
        self._running -= 1
        now = self._loop.time()
        if settle is not None:
            if not self._ends:
                self._collect_until = now + COLLECT_S
            self._ends.append((settle, job))
        at_once = (self._running == 0 or len(self._ends) >= self._quarter) and len(self._quick) < QUICK_MAX
        self._look_by(now if at_once else now + COLLECT_S)

    def close(self) -> None:
        """Fetch no more. What quick polls under way still bring arrives, to be released; settles go on."""
        self._closed = True
        for poll in self._waiting:
            poll.cancel()
        self._look_by(self._loop.time())

    async def drain(self, patience: float) -> int:
        """After `close`: wait until all is settled, `patience` seconds at most. How many settles were left."""
        try:
            async with asyncio.timeout(patience):
                while self._ends or self._quick:
                    self._drained.clear()
                    await self._drained.wait()
        except TimeoutError:
            pass
        left = len(self._ends) + self._sent
        await asyncio.gather(*self.abort(), return_exceptions=True)
        return left

    def abort(self) -> list[asyncio.Task[None]]:
        """Send nothing more; the polls that were under way, cancelled."""
        self._closed, self._resume_at = True, float("inf")
        if self._timer is not None:
            self._timer.cancel()
        polls = [*self._quick, *self._waiting]
        for poll in polls:
            poll.cancel()
        return polls

    # ── deciding ──

    @property
    def _free(self) -> int:
        """Slots for new messages. Settles that pile up (the broker does not take them) count, so that they stay bounded."""
        piled_up = max(0, len(self._ends) - self._concurrency)
        return 0 if self._closed else max(0, self._concurrency - self._running - self._asked - piled_up)

    def _look_by(self, at: float) -> None:
        at = max(at, self._resume_at)
        if at < self._look_at:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at, self._timer = at, self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """Start the polls that are due, and come back when the next one is."""
        self._look_at, self._timer = float("inf"), None
        now = self._loop.time()
        if now < self._resume_at:
            return self._look_by(self._resume_at)
        while len(self._quick) < QUICK_MAX and self._quick_due(now):
            self._send_quick()
        for lane in list(self._lanes):
            if self._free and self._may_wait(lane, now):
                self._send_waiting(lane)
        if len(self._quick) < QUICK_MAX and self._ends:
            self._look_by(max(now, self._collect_until))
        if self._free:
            for lane in self._lanes:
                if not lane.waiting and not lane.asked and not (lane.hungry and len(self._quick) >= QUICK_MAX):
                    self._look_by(max(now, lane.rest_until))
        if not self._ends and not self._quick:
            self._drained.set()
        return None

    def _quick_due(self, now: float) -> bool:
        free = self._free
        if self._ends and (len(self._ends) >= self._quarter or self._running == 0 or now >= self._collect_until or self._closed):
            return True
        if not free:
            return False
        hungry = [lane for lane in self._lanes if lane.hungry and not lane.waiting and not lane.asked]
        return bool(hungry) and (free >= self._quarter or any(now >= lane.rest_until for lane in hungry))

    def _may_wait(self, lane: Lane, now: float) -> bool:
        return not lane.hungry and not lane.waiting and not lane.asked and now >= lane.rest_until

    # ── doing ──

    def _send_quick(self) -> None:
        alone = self._singly > 0
        self._singly -= alone
        batch = self._next_ends(1 if alone else m.BATCH_MAX)
        self._collect_until = self._loop.time() + COLLECT_S
        lane, limit = (None, 0) if alone else self._next_fetch()
        if lane is not None:
            lane.asked += 1
        self._asked += limit
        self._sent += len(batch)
        poll = self._loop.create_task(self._exchange(lane, limit, 0.0, batch))
        self._quick.add(poll)
        poll.add_done_callback(self._quick.discard)

    def _next_ends(self, most: int) -> list[End]:
        batch: list[End] = []
        size = 0
        while self._ends and len(batch) < most:
            if (result := self._ends[0][0].result) is not None:
                size += len(result)
                if size > RESULT_BYTES and batch:
                    break
            batch.append(self._ends.popleft())
        return batch

    def _next_fetch(self) -> tuple[Lane | None, int]:
        """The lane whose turn it is, the hungry first, and its share of the free slots."""
        open_lanes = [lane for lane in self._lanes if not lane.waiting]
        chosen = [lane for lane in open_lanes if lane.hungry] or open_lanes
        free = self._free
        if not chosen or not free:
            return None, 0
        self._lanes.remove(chosen[0])
        self._lanes.append(chosen[0])
        return chosen[0], min(max(1, free // len(chosen)), m.BATCH_MAX)

    def _send_waiting(self, lane: Lane) -> None:
        others = sum(1 for other in self._lanes if other is not lane and not other.waiting)
        spare = 1 if len(self._lanes) > 1 else 0  # so that a lane with much to do finds slots to begin with
        limit = min(max(1, self._free // (1 + others + spare)), m.BATCH_MAX)
        lane.waiting = True
        self._asked += limit
        self._lanes.remove(lane)
        self._lanes.append(lane)
        wait = WAIT_S if len(self._lanes) < self._concurrency or len(self._lanes) == 1 else WAIT_SHARED_S
        poll = self._loop.create_task(self._exchange(lane, limit, wait, []))
        self._waiting.add(poll)
        poll.add_done_callback(self._waiting.discard)

    async def _exchange(self, lane: Lane | None, limit: int, wait: float, batch: list[End]) -> None:
        """One poll and what follows from its answer."""
        request = wire.Poll(limit=limit, wait=wait, settle=[settle for settle, _ in batch])
        if lane is not None:
            request.namespace, request.topics = lane.namespace, lane.topics
        else:
            request.namespace = batch[0][0].namespace
        try:
            polled = await self._poll(request)
            if len(polled.verdicts) != len(batch):
                raise Unavailable(f"{len(polled.verdicts)} verdicts for {len(batch)} settles")
        except asyncio.CancelledError:
            self._landed(lane, limit, wait, None, batch)
            self._ends.extendleft(reversed(batch))
        except Exception as error:
            self._landed(lane, limit, wait, None, batch)
            if batch and isinstance(error, UNSENDABLE):
                self._unsendable(error, batch, alone=lane is None and len(batch) == 1)
            else:
                self._without_answer(error if isinstance(error, MQueueError) else Unavailable(repr(error)), batch)
        else:
            self._landed(lane, limit, wait, polled, batch)
            self._with_answer(polled, batch)
        self._look_by(self._loop.time())

    def _landed(self, lane: Lane | None, limit: int, wait: float, polled: wire.Polled | None, batch: list[End]) -> None:
        """Give back what the poll had taken; what came runs from here on."""
        came = len(polled.messages) if polled is not None else 0
        self._asked -= limit
        self._sent -= len(batch)
        self._running += came
        task = asyncio.current_task()
        if task is not None:
            self._quick.discard(task)
        if lane is None:
            return
        lane.hungry = polled is not None and came >= limit
        rest = REST_S if wait and not came else COLLECT_S if self._running else 0.0
        lane.rest_until = self._loop.time() + rest
        if wait:
            lane.waiting = False
        else:
            lane.asked -= 1

    def _with_answer(self, polled: wire.Polled, batch: list[End]) -> None:
        if self._failed:
            log.info("the broker answers again", settled=len(batch))
        self._failed, self._greeted = 0, True
        for (_, job), verdict in zip(batch, polled.verdicts, strict=True):
            self._settled(job, verdict.status)
        for message in polled.messages:
            self._arrived(message)

    def _unsendable(self, error: Exception, batch: list[End], *, alone: bool) -> None:
        """One of them is to blame, or what they went with. The lease of the one given up ends: it comes again."""
        if alone:
            [(settle, job)] = batch
            if settle.result is not None and isinstance(error, TooLarge):  # for this broker: another run would give no other
                self._ends.appendleft((outcome.too_large(settle, error.detail), job))
                return None
            log.error("settle refused, given up", id=settle.id, kind=settle.kind, error=str(error))
            return self._settled(job, None)
        self._ends.extendleft(reversed(batch))
        self._singly += len(batch)
        return None

    def _without_answer(self, error: MQueueError, batch: list[End]) -> None:
        if isinstance(error, Unauthorized | Forbidden | NotFound) and not self._greeted:
            self._refused(error)
        self._ends.extendleft(reversed(batch))
        if not self._failed:
            log.warning("no answer from the broker, trying on", error=str(error), unsettled=len(self._ends))
        self._failed += 1
        self._resume_at = self._loop.time() + pause_s(self._failed, error.retry_after, self._jitter())
