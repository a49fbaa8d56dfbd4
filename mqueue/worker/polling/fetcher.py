"""It fetches for free slots, and settles what ended: both ride in one `POST /poll`.

Which poll goes out when is decided in `plan.py`; here it is sent, and what follows from its answer is done. Polls that
wait have names (`waits.py`); what a batch still lacks is fetched beside them (`filling.py`).

A lane whose poll gets no answer is left alone for a growing pause, and so are settles (`settles.py`), each by
themselves: one shard that is away does not hold up the others. (A settle sent twice is `gone` or `stale`: harmless.)

What comes while the loop does not turn (`absence.py`) for a third of its lease goes back at once: it may be another's
by now.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.errors import Forbidden, Invalid, MQueueError, NotFound, TooLarge, Unauthorized, Unavailable
from mqueue.worker.polling.absence import Absence
from mqueue.worker.polling.filling import Filling
from mqueue.worker.polling.lane import Lane, taken
from mqueue.worker.polling.pace import GROW_S, Pace
from mqueue.worker.polling.pause import Pause
from mqueue.worker.polling.plan import COLLECT_S, QUICK_MAX, Fetch, Slots, next_fetch, next_look, next_wait, quick_due, rest_s
from mqueue.worker.polling.settles import End, Settles
from mqueue.worker.polling.waits import Waits
from mqueue.worker.running import outcome
from mqueue.worker.tasks.job import Job

UNSENDABLE = (Invalid, TooLarge, TypeError, ValueError, OverflowError)  # the settle is refused, or cannot even be encoded, and never will be

log = structlog.get_logger("mqueue.worker")

Poll = Callable[[wire.Poll], Awaitable[wire.Polled]]


class Fetcher:
    """It runs on the loop that made it. `arrived(message)` must lead to one `finish`, its settle to one `settled(job,
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
        self._lanes = deque(lanes)  # the one whose turn it is first
        self._arrived = arrived
        self._settled = settled
        self._refused = refused
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self.slots = Slots(concurrency)
        self._pace = Pace(concurrency)
        self._settles = Settles()
        self._sent = 0  # settles under way
        self._collect_until = 0.0
        self._quick: set[asyncio.Task[None]] = set()
        self._waits = Waits(self._loop, poll)
        self._filling = Filling(
            self.slots,
            self._waits,
            self._fetch,
            gathered=gathered,
            complete=complete,
            failed=lambda lane, error: self._without_answer(error, lane, []),
            over=lambda: self._look_by(self._loop.time()),
        )
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")
        self._context = copy_context()  # polls begin with this one: what a job left in its own must not go along
        self._absence = Absence(self._loop)
        self.away_s = self._absence.longest_s
        self._greeted = False
        self._aborted = False
        self._drained = asyncio.Event()
        self._patience: asyncio.Timeout | None = None

    # ── what the runtime calls ──

    def start(self) -> None:
        """From now on it fetches."""
        self._absence.start()
        self._look_by(self._loop.time())

    def finish(self, settle: wire.PollSettle | None, job: Job | None, slots: int = 1) -> None:
        """So many slots are free again. `settle` None: the lease was lost, there is nothing to say."""
        self.slots.running -= slots
        now = self._loop.time()
        if settle is not None:
            if not self._settles:
                self._collect_until = now + COLLECT_S
            self._settles.add(End(settle, job))
        at_once = (self.slots.running == 0 or len(self._settles) >= self.slots.quarter) and len(self._quick) < QUICK_MAX
        self._look_by(now if at_once else now + COLLECT_S)

    def doubt(self) -> None:
        """The polls that wait may wait in vain: others go out in their place."""
        self._waits.doubt()

    def late(self) -> None:
        """Leases were not renewed in time: fewer jobs are fetched for a while."""
        now = self._loop.time()
        if self._pace.late(now):
            log.warning("leases are not renewed in time, fewer jobs are fetched", slots=self._pace.limit(now), of=self.slots.size)
            self._look_by(now + GROW_S)

    def resume(self) -> None:
        """The broker answers again: no poll waits for its pause to end."""
        for lane in self._lanes:
            lane.pause.until = 0.0
        self._settles.resume()
        self._look_by(self._loop.time())

    def close(self) -> None:
        """It fetches no more. What polls under way still bring arrives, to be released; settles go on."""
        self.slots.closed = True
        self._waits.end()
        self._look_by(self._loop.time())

    async def drain(self, patience: float) -> int:
        """Waits, after `close`, until all is settled, `patience` seconds at most. Returns how many settles are left."""
        try:
            async with asyncio.timeout(patience) as self._patience:
                while self._settles or self._quick or self._waits:
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
        """Nothing more is sent. Returns the polls that were under way, cancelled."""
        self.slots.closed = self._aborted = True
        self._absence.stop()
        if self._timer is not None:
            self._timer.cancel()
        polls = [*self._quick, *self._waits.under_way()]
        for poll in polls:
            poll.cancel()
        return polls

    # ── sending ──

    def _look_by(self, at: float) -> None:
        if at < self._look_at and not self._aborted:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at, self._timer = at, self._loop.call_at(at, self._look, context=self._context)

    def _look(self) -> None:
        """Starts the polls that are due, and comes back when the next one is."""
        self._look_at, self._timer = float("inf"), None
        now = self._loop.time()
        if self._pace.recovered(now):
            log.info("leases are renewed in time, all slots are used again", slots=self.slots.size)
        self.slots.most = self._pace.limit(now)
        while quick_due(now, self.slots, self._lanes, self._settles, len(self._quick), self._collect_until):
            self._send_quick()
        while (fetch := next_wait(now, self._free(), self.slots, self._lanes)) is not None:
            self._send_waiting(fetch)
        self._look_by(next_look(now, self._free(), self._lanes, self._settles, len(self._quick), self._collect_until))
        if self._pace.slowed:
            self._look_by(now + GROW_S)
        if not self._settles and not self._quick and not self._waits:
            self._drained.set()

    def _free(self) -> int:
        return self.slots.free(len(self._settles))

    def _send_quick(self) -> None:
        now = self._loop.time()
        batch, alone = self._settles.take(now)
        self._collect_until = now + COLLECT_S
        fetch = None if alone else next_fetch(self._free(), self._lanes)
        if fetch is not None:
            fetch.lane.asked += 1
            self._reserve(fetch)
        self._sent += len(batch)
        poll = self._loop.create_task(self._exchange(fetch, batch))
        self._quick.add(poll)
        poll.add_done_callback(self._quick.discard)

    def _send_waiting(self, fetch: Fetch) -> None:
        fetch.lane.waiting = True
        self._reserve(fetch)
        self._waits.begin(fetch.lane.namespace, lambda name: self._exchange(fetch, [], name))

    def _reserve(self, fetch: Fetch) -> None:
        """Its slots are taken until the answer is there, and it is another lane's turn."""
        self.slots.asked += taken(fetch.lane, fetch.limit)
        self._lanes.remove(fetch.lane)
        self._lanes.append(fetch.lane)

    async def _fetch(self, request: wire.Poll) -> Sequence[wire.Message]:
        """Polls for a batch, and leaves out what may be another's by now."""
        sent = self._absence.now()
        return self._fresh((await self._poll(request)).messages, sent)

    async def _exchange(self, fetch: Fetch | None, batch: list[End], name: str | None = None) -> None:
        """Sends one poll, and does what follows from its answer."""
        request = wire.Poll(settle=[end.settle for end in batch], name=name)
        lane = None if fetch is None else fetch.lane
        if fetch is not None:
            request.namespace, request.topics = fetch.lane.namespace, fetch.lane.topics
            request.limit, request.wait = fetch.limit, fetch.wait
        else:
            request.namespace = batch[0].settle.namespace
        sent = self._absence.now()
        try:
            polled = await self._poll(request)
            if len(polled.verdicts) != len(batch):
                raise Unavailable(f"{len(polled.verdicts)} verdicts for {len(batch)} settles")
        except asyncio.CancelledError:
            self._landed(fetch, 0, batch)
            self._settles.give_back(batch)
        except Exception as error:
            self._landed(fetch, 0, batch)
            if batch and isinstance(error, UNSENDABLE):
                self._unsendable(error, batch, alone=lane is None and len(batch) == 1)
            else:
                self._without_answer(error, lane, batch)
        else:
            polled.messages = self._fresh(polled.messages, sent)
            self._landed(fetch, len(polled.messages), batch)
            self._with_answer(lane, polled, batch)
        self._look_by(self._loop.time())

    # ── what follows ──

    def _landed(self, fetch: Fetch | None, came: int, batch: list[End]) -> None:
        """Gives back what the poll had taken; what came runs from here on."""
        self._sent -= len(batch)
        self._settles.landed(batch)
        task = asyncio.current_task()
        if task is not None:
            self._quick.discard(task)
            self._waits.over(task)
        if fetch is None:
            return
        lane = fetch.lane
        self.slots.asked -= taken(lane, fetch.limit)
        self.slots.running += taken(lane, came)
        lane.hungry = came >= fetch.limit
        lane.rest_until = self._loop.time() + rest_s(fetch, came, self.slots.running)
        if fetch.wait:
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
            return self._filling.came(lane, polled.messages)
        for message in polled.messages:
            self._arrived(message)
        return None

    def _fresh(self, messages: list[wire.Message], sent: float) -> list[wire.Message]:
        """Leaves out those whose lease may be over: they go back, which changes nothing where it is."""
        away_s = self.away_s(sent) if messages else 0.0
        for message in (late := [message for message in messages if away_s > message.lease / 3]):
            self.finish(outcome.RELEASED.settle(message), None, slots=0)
        if late:
            log.warning("the worker was away, what came meanwhile goes back", seconds=round(away_s, 1), messages=len(late))
        return [message for message in messages if away_s <= message.lease / 3] if late else messages

    def _unsendable(self, error: Exception, batch: list[End], *, alone: bool) -> None:
        """One of them is to blame, or what they went with. The lease of the one given up ends: it comes again."""
        if not alone:
            return self._settles.refused(batch)
        [end] = batch
        if end.settle.result is not None and isinstance(error, TooLarge):  # another run would give no smaller result
            return self._settles.give_back([End(outcome.too_large(end.settle, error.detail), end.job)])
        log.error("settle refused, given up", id=end.settle.id, kind=end.settle.kind, error=str(error))
        return self._settled(end.job, None)

    def _without_answer(self, error: Exception, lane: Lane | None, batch: list[End]) -> None:
        """The poll failed. What went together is tried apart, settles and fetch: then it shows which it was."""
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
