"""Fetches for free slots, and settles what ended: both ride in one `POST /poll`.

A *quick* poll brings settles and asks, without waiting, for as many messages as there are free slots. It goes out when
a quarter of the slots has ended, when nothing runs any more, or COLLECT_S after the first settle: so quick jobs share
requests, and slow ones are settled at once. A lane that gave all it was asked for is *hungry* (there may be more) and
is asked again so.

A *waiting* poll goes out for a lane that gave less: it has the lane's free slots, carries no settles, and comes back
with the first message. What ends meanwhile is settled by quick polls beside it.

A batch is one slot, its topic a lane of its own: a poll for it asks for a whole batch. What is missing then comes by
more polls until `batch_wait` has passed; they take no slot, since what they bring belongs to the batch that has one.

Slots asked for are taken until the answer is there, so the worker never holds a message that it cannot start. A lane
whose poll gets no answer is left alone for a growing pause, and so are settles (`settles.py`), each by themselves: one
shard that is away does not hold up the others. (A settle sent twice is `gone` or `stale`: harmless.)

What comes while the loop does not turn (`absence.py`) for a third of its lease goes back at once: it may be another's
by now.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from uuid import uuid4

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.errors import Forbidden, Invalid, MQueueError, NotFound, TooLarge, Unauthorized, Unavailable
from mqueue.worker.polling.absence import Absence
from mqueue.worker.polling.lane import Lane, taken
from mqueue.worker.polling.pause import Pause
from mqueue.worker.polling.settles import End, Settles
from mqueue.worker.running import outcome
from mqueue.worker.tasks.job import Job

COLLECT_S = 0.0015
QUICK_MAX = 4  # quick polls under way
WAIT_S = 20.0
WAIT_SHARED_S = 1.0  # where lanes must take turns for too few slots
GATHER_S, GATHER_SHARE = 0.05, 0.1  # between two polls for one batch, at most that share of its wait: so that each brings several
GATHER_LATE_S = 1.0  # for an answer: then the batch begins without it
RETRY_WAIT_S = 0.01  # after a poll that failed: the next one tells soon whether the broker is back
REST_S = 0.05  # after a waiting poll that brought nothing
END_S, END_AGAIN_S = 1.0, 0.2  # for polls that wait to come back when the worker stops; until it is asked for again
UNSENDABLE = (Invalid, TooLarge, TypeError, ValueError, OverflowError)  # refused, or not even encoded: so for ever

log = structlog.get_logger("mqueue.worker")

Poll = Callable[[wire.Poll], Awaitable[wire.Polled]]


class Fetcher:
    """Runs on the loop that made it. `arrived(message)` must lead to one `finish`, its settle to one `settled(job,
    status)`.

    `status`: the broker's verdict, None where it would not take the settle. `refused(error)`: it does not take the
    token. `gathered(lane, messages)`, for a lane of batches: how many more its batch wants. `complete(lane)`: begin it
    with what there is.
    """

    def __init__(
        self,
        poll: Poll,
        lanes: Sequence[Lane],
        concurrency: int,
        *,
        arrived: Callable[[wire.Message], None],
        settled: Callable[[Job | None, m.Verdict | None], None],
        refused: Callable[[MQueueError], None],
        jitter: Callable[[], float],
        gathered: Callable[[Lane, Sequence[wire.Message]], int] = lambda lane, messages: 0,
        complete: Callable[[Lane], None] = lambda lane: None,
    ) -> None:
        self._poll = poll
        self._lanes = deque(lanes)
        self._concurrency = concurrency
        self._quarter = max(1, concurrency // 4)
        self._arrived = arrived
        self._settled = settled
        self._refused = refused
        self._jitter = jitter
        self._gathered = gathered
        self._complete = complete
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._asked = 0  # slots that polls under way may fill
        self._sent = 0  # settles under way
        self._settles = Settles()
        self._collect_until = 0.0
        self._quick: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], wire.Poll] = {}  # and what ends them
        self._ending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")
        self._context = copy_context()  # for polls: what a job left in its own must not go along
        self._absence = Absence(self._loop)
        self.away_s = self._absence.longest_s
        self._greeted = False
        self._closed = self._aborted = False
        self._drained = asyncio.Event()
        self._patience: asyncio.Timeout | None = None

    # ── what the runtime calls ──

    def start(self) -> None:
        self._absence.start()
        self._look_by(self._loop.time())

    def finish(self, settle: wire.PollSettle | None, job: Job | None, slots: int = 1) -> None:
        """So many slots are free again. `settle` None: the lease was lost, there is nothing to say."""
        self._running -= slots
        now = self._loop.time()
        if settle is not None:
            if not self._settles:
                self._collect_until = now + COLLECT_S
            self._settles.add(End(settle, job))
        at_once = (self._running == 0 or len(self._settles) >= self._quarter) and len(self._quick) < QUICK_MAX
        self._look_by(now if at_once else now + COLLECT_S)

    def doubt(self) -> None:
        """The polls that wait may wait in vain: others go out in their place."""
        for poll in list(self._waiting):
            self._loop.call_soon(poll.cancel)  # once it has begun: of one that never did nobody would give back the slots

    def resume(self) -> None:
        """The broker answers again: no poll waits for its pause to end."""
        for lane in self._lanes:
            lane.pause.until = 0.0
        self._settles.resume()
        self._look_by(self._loop.time())

    def close(self) -> None:
        """Fetch no more. What polls under way still bring arrives, to be released; settles go on."""
        self._closed = True
        if self._waiting:
            self._ending = self._loop.create_task(self._end_waits())
        self._look_by(self._loop.time())

    async def _end_waits(self) -> None:
        """By asking for it: of a poll that is cut off, a message on its way would have lost an attempt."""
        try:
            async with asyncio.timeout(END_S):
                while self._waiting:
                    for end in list(self._waiting.values()):
                        await self._poll(end)
                    if self._waiting:
                        await asyncio.wait(list(self._waiting), timeout=END_AGAIN_S)
        except Exception:  # it cannot be reached
            pass
        finally:
            self.doubt()

    async def drain(self, patience: float) -> int:
        """After `close`: wait until all is settled, `patience` seconds at most. How many settles were left."""
        try:
            async with asyncio.timeout(patience) as self._patience:
                while self._settles or self._quick or self._waiting:
                    self._drained.clear()
                    await self._drained.wait()
        except TimeoutError:
            pass
        self._patience = None
        left = len(self._settles) + self._sent
        await asyncio.gather(*self.abort(), return_exceptions=True)
        return left

    def hurry(self, patience: float) -> None:
        """The drain under way ends within so many seconds."""
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(min(self._patience.when() or float("inf"), self._loop.time() + patience))

    def abort(self) -> list[asyncio.Task[None]]:
        """Send nothing more; the polls that were under way, cancelled."""
        self._closed = self._aborted = True
        self._absence.stop()
        if self._timer is not None:
            self._timer.cancel()
        polls = [*self._quick, *self._waiting, *([self._ending] if self._ending is not None else [])]
        for poll in polls:
            poll.cancel()
        return polls

    # ── deciding ──

    @property
    def _free(self) -> int:
        """Slots for new messages. Settles that pile up (the broker does not take them) count, so that they stay
        bounded.
        """
        piled_up = max(0, len(self._settles) - self._concurrency)
        return 0 if self._closed else max(0, self._concurrency - self._running - self._asked - piled_up)

    def _look_by(self, at: float) -> None:
        if at < self._look_at and not self._aborted:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at, self._timer = at, self._loop.call_at(at, self._look, context=self._context)

    def _look(self) -> None:
        """Start the polls that are due, and come back when the next one is."""
        self._look_at, self._timer = float("inf"), None
        now = self._loop.time()
        while len(self._quick) < QUICK_MAX and self._quick_due(now):
            self._send_quick()
        for lane in list(self._lanes):
            if self._free and self._may_wait(lane, now):
                self._send_waiting(lane)
        if len(self._quick) < QUICK_MAX and self._settles:
            self._look_by(max(now, self._collect_until, self._settles.due_at()))
        if self._free:
            for lane in self._lanes:
                if lane.idle and not (lane.hungry and len(self._quick) >= QUICK_MAX):
                    self._look_by(max(now, lane.rest_until, lane.pause.until))
        if not self._settles and not self._quick and not self._waiting:
            self._drained.set()

    def _quick_due(self, now: float) -> bool:
        free = self._free
        due = self._settles.due(now)
        if due and (due >= self._quarter or self._running == 0 or now >= self._collect_until or self._closed):
            return True
        if not free:
            return False
        hungry = [lane for lane in self._lanes if lane.hungry and lane.idle and now >= lane.pause.until]
        return bool(hungry) and (free >= self._quarter or any(now >= lane.rest_until for lane in hungry))

    def _may_wait(self, lane: Lane, now: float) -> bool:
        return lane.idle and not lane.hungry and now >= max(lane.rest_until, lane.pause.until)

    # ── doing ──

    def _send_quick(self) -> None:
        now = self._loop.time()
        batch, alone = self._settles.take(now)
        self._collect_until = now + COLLECT_S
        lane, limit = (None, 0) if alone else self._next_fetch(now)
        if lane is not None:
            lane.asked += 1
        self._asked += taken(lane, limit)
        self._sent += len(batch)
        poll = self._loop.create_task(self._exchange(lane, limit, 0.0, batch))
        self._quick.add(poll)
        poll.add_done_callback(self._quick.discard)

    def _next_fetch(self, now: float) -> tuple[Lane | None, int]:
        """The lane whose turn it is, the hungry first, and its share of the free slots."""
        open_lanes = [
            lane for lane in self._lanes if not lane.waiting and not lane.filling and not (lane.batch and lane.asked) and not lane.pause.failed
        ]
        chosen = [lane for lane in open_lanes if lane.hungry] or open_lanes
        free = self._free
        if not chosen or not free:
            return None, 0
        self._lanes.remove(chosen[0])
        self._lanes.append(chosen[0])
        return chosen[0], chosen[0].batch or min(max(1, free // len(chosen)), m.BATCH_MAX)

    def _send_waiting(self, lane: Lane) -> None:
        others = sum(1 for other in self._lanes if other is not lane and not other.waiting)
        spare = 1 if len(self._lanes) > 1 else 0  # so that a lane with much to do finds slots to begin with
        limit = lane.batch or min(max(1, self._free // (1 + others + spare)), m.BATCH_MAX)
        lane.waiting = True
        self._asked += taken(lane, limit)
        self._lanes.remove(lane)
        self._lanes.append(lane)
        wait = WAIT_S if len(self._lanes) < self._concurrency or len(self._lanes) == 1 else WAIT_SHARED_S
        if lane.pause.failed:
            wait = RETRY_WAIT_S
        name = uuid4().hex
        poll = self._loop.create_task(self._exchange(lane, limit, wait, [], name))
        self._waiting[poll] = wire.Poll(namespace=lane.namespace, end=[name])
        poll.add_done_callback(self._has_waited)

    def _has_waited(self, poll: asyncio.Task[None]) -> None:
        self._waiting.pop(poll, None)

    async def _exchange(self, lane: Lane | None, limit: int, wait: float, batch: list[End], name: str | None = None) -> None:
        """One poll and what follows from its answer."""
        request = wire.Poll(limit=limit, wait=wait, settle=[end.settle for end in batch], name=name)
        if lane is not None:
            request.namespace, request.topics = lane.namespace, lane.topics
        else:
            request.namespace = batch[0].settle.namespace
        sent = self._absence.now()
        try:
            polled = await self._poll(request)
            if len(polled.verdicts) != len(batch):
                raise Unavailable(f"{len(polled.verdicts)} verdicts for {len(batch)} settles")
        except asyncio.CancelledError:
            self._landed(lane, limit, wait, None, batch)
            self._settles.give_back(batch)
        except Exception as error:
            self._landed(lane, limit, wait, None, batch)
            if batch and isinstance(error, UNSENDABLE):
                self._unsendable(error, batch, alone=lane is None and len(batch) == 1)
            else:
                self._without_answer(error, lane, batch)
        else:
            polled.messages = self._fresh(polled.messages, sent)
            self._landed(lane, limit, wait, polled, batch)
            self._with_answer(lane, polled, batch)
        self._look_by(self._loop.time())

    def _landed(self, lane: Lane | None, limit: int, wait: float, polled: wire.Polled | None, batch: list[End]) -> None:
        """Give back what the poll had taken; what came runs from here on."""
        came = len(polled.messages) if polled is not None else 0
        self._asked -= taken(lane, limit)
        self._sent -= len(batch)
        self._settles.landed(batch)
        self._running += taken(lane, came)
        task = asyncio.current_task()
        if task is not None:
            self._quick.discard(task)
            self._has_waited(task)
        if lane is None:
            return
        lane.hungry = polled is not None and came >= limit
        rest = REST_S if wait and not came else COLLECT_S if self._running else 0.0
        lane.rest_until = self._loop.time() + rest
        if wait:
            lane.waiting = False
        else:
            lane.asked -= 1

    def _with_answer(self, lane: Lane | None, polled: wire.Polled, batch: list[End]) -> None:
        self._greeted = True
        news = self._settles.answered(batch)
        if lane is not None and lane.pause.failed:
            lane.pause, news = Pause(), True
        if news:
            log.info("the broker answers again", settled=len(batch), topics=lane.topics if lane is not None else [])
        for end, verdict in zip(batch, polled.verdicts, strict=True):
            self._settled(end.job, verdict.status)
        if lane is not None and lane.batch is not None:
            return self._fill(lane, polled.messages)
        for message in polled.messages:
            self._arrived(message)
        return None

    def _fresh(self, messages: list[wire.Message], sent: float) -> list[wire.Message]:
        """Without those whose lease may be over: they go back, which changes nothing where it is."""
        away_s = self.away_s(sent) if messages else 0.0
        for message in (late := [message for message in messages if away_s > message.lease / 3]):
            self.finish(outcome.RELEASED.settle(message), None, slots=0)
        if late:
            log.warning("the worker was away, what came meanwhile goes back", seconds=round(away_s, 1), messages=len(late))
        return [message for message in messages if away_s <= message.lease / 3] if late else messages

    def _fill(self, lane: Lane, messages: Sequence[wire.Message]) -> None:
        """A batch has its slot; what is missing still comes by polls of its own, which take none."""
        room = self._gathered(lane, messages) if messages else 0
        if not room:
            return
        lane.filling = True
        name = uuid4().hex
        filling = self._loop.create_task(self._gather(lane, room, name))
        self._waiting[filling] = wire.Poll(namespace=lane.namespace, end=[name])
        filling.add_done_callback(lambda _: self._filled(lane, filling))

    def _filled(self, lane: Lane, filling: asyncio.Task[None]) -> None:
        self._has_waited(filling)
        lane.filling = False
        if not self._closed:
            self._complete(lane)
        self._look_by(self._loop.time())  # closed, too: somebody may wait for the last poll to be back

    async def _gather(self, lane: Lane, room: int, name: str) -> None:
        deadline = self._loop.time() + lane.batch_wait
        try:
            while room and not self._closed and (left := deadline - self._loop.time()) > 0:
                await asyncio.sleep(min(left, GATHER_S, lane.batch_wait * GATHER_SHARE))
                wait = max(0.0, deadline - self._loop.time())
                sent = self._absence.now()
                async with asyncio.timeout(wait + GATHER_LATE_S):
                    polled = await self._poll(wire.Poll(namespace=lane.namespace, topics=lane.topics, limit=room, wait=wait, name=name))
                room = self._gathered(lane, self._fresh(polled.messages, sent))
        except Exception as error:
            self._without_answer(error, lane, [])

    def _unsendable(self, error: Exception, batch: list[End], *, alone: bool) -> None:
        """One of them is to blame, or what they went with. The lease of the one given up ends: it comes again."""
        if not alone:
            return self._settles.refused(batch)
        [end] = batch
        if end.settle.result is not None and isinstance(error, TooLarge):  # for this broker: another run would give no other
            return self._settles.give_back([End(outcome.too_large(end.settle, error.detail), end.job)])
        log.error("settle refused, given up", id=end.settle.id, kind=end.settle.kind, error=str(error))
        return self._settled(end.job, None)

    def _without_answer(self, error: Exception, lane: Lane | None, batch: list[End]) -> None:
        """Of a poll with settles and a fetch the settles are tried by themselves: then it shows which of them it
        was.
        """
        told = error if isinstance(error, MQueueError) else Unavailable(repr(error))
        if isinstance(told, Unauthorized | Forbidden | NotFound) and not self._greeted:
            self._refused(told)
        now, news = self._loop.time(), False
        if batch:
            news = self._settles.unanswered(batch, now, told.retry_after, self._jitter())
        elif lane is not None:
            news = not lane.pause.failed
            lane.pause.extend(now, told.retry_after, self._jitter())
        if news:
            topics = lane.topics if lane is not None and not batch else sorted({end.settle.topic for end in batch})
            log.warning("no answer from the broker, trying on", error=str(told), topics=topics, unsettled=len(self._settles))
