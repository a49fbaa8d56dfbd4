"""Shards are joined here, at the edge: several are asked for one answer, and a silent one holds up no other.

A fetch asks one shard after the other, as long as each answers at once: what two gave for one place would have to go
back. Where one is silent for HEDGE_S the next is asked beside it. As soon as one has given something, those that are
still silent are given up, GRACE_S later: the leases that are there must not age. Those that are known to be away are
asked last, and only where no other has anything.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Generic, TypeVar

from mqueue.broker.faults import Fault, unavailable
from mqueue.errors import Unavailable

T = TypeVar("T")

HEDGE_S = 0.5  # a healthy shard answers sooner, also past Redis on a busy disk: what is given up may have leased, out of its order
GRACE_S = 0.25


async def fetch_joined(
    numbers: Iterable[int],
    fetch: Callable[[int, int], Awaitable[list[T]]],
    limit: int,
    missing: set[int],
    give_back: Callable[[Sequence[T]], None],
    away: Callable[[int], bool],
    away_s: float,
    woken: asyncio.Event | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[T]:
    """Returns what these shards give, `limit` at most. `fetch`: asks one for so many, and gives back what it leases
    once it is cancelled. `missing` gets those that gave no answer, needed or not, and those of whose answer something
    goes back. `away`: is it known to give none now? Such a one is asked last; who has something does not wait for it,
    and who has nothing for `away_s`. `woken`: those that had nothing are asked again, unless it is to `stop`: then it
    ends within GRACE_S. Raises Unavailable where one failed and no other has anything; then, and where this is
    cancelled, nothing stays leased.
    """
    join = _Join(sorted(numbers, key=away), fetch, limit, missing, give_back, away, away_s, woken)
    try:
        while join.goes_on():
            join.ask()
            if not await join.hear(stop):
                break
    except BaseException:
        give_back(join.found)
        join.found = []
        raise
    finally:
        join.leave()
    return join.result()


class _Join(Generic[T]):
    """One such fetch. `over_at`: then those that are silent are given up, since there is something or it is to stop."""

    def __init__(
        self,
        order: list[int],
        fetch: Callable[[int, int], Awaitable[list[T]]],
        limit: int,
        missing: set[int],
        give_back: Callable[[Sequence[T]], None],
        away: Callable[[int], bool],
        away_s: float,
        woken: asyncio.Event | None,
    ) -> None:
        self.found: list[T] = []
        self._order, self._fetch, self._limit, self._missing, self._give_back = order, fetch, limit, missing, give_back
        self._away, self._away_s, self._woken = away, away_s, woken
        self._now = asyncio.get_running_loop().time
        self._waiting = order[::-1]
        self._running: dict[asyncio.Task[list[T]], int] = {}
        self._ends: dict[int, int] = {}  # how many were found when a shard had answered
        self._failed: Unavailable | None = None
        self._next_at = self._now()  # then the next is asked, whether those before have answered or not
        self._alone = False  # are only such waited for as are away?
        self._alone_at = self.over_at = math.inf  # since the former it was so, but for those that were asked again
        self._word = None if woken is None else asyncio.ensure_future(woken.wait())

    def goes_on(self) -> bool:
        if len(self.found) >= self._limit or not (self._waiting or self._running):
            return False
        if self.found:
            return not all(map(self._away, (*self._waiting, *self._running.values())))
        return self.over_at == math.inf or bool(self._running)

    def ask(self) -> None:
        """Asks the next shard where it is its turn."""
        if self._waiting and (not self._running or (self.over_at == math.inf and self._now() >= self._next_at)):
            number = self._waiting.pop()
            self._running[asyncio.ensure_future(_answer(self._fetch(number, self._limit - len(self.found))))] = number
            self._next_at = self._now() + HEDGE_S
            self.over_at = self._now() + GRACE_S if self.found else self.over_at  # each gets its time
        silent = [number for number in self._running.values() if self._away(number)]
        self._alone = not self._waiting and len(silent) == len(self._running)
        if self._alone:
            self._alone_at = min(self._alone_at, self._now())
        elif not silent:
            self._alone_at = math.inf

    async def hear(self, stop: Callable[[], bool]) -> bool:
        """Waits for an answer, for the word, or until the next is to be asked. False: nobody is waited for any more."""
        over = self.over_at < math.inf
        ends_at = self._alone_at + self._away_s
        until = self.over_at if over else self._next_at if self._waiting else ends_at if self._alone else max(ends_at, self._next_at)
        listens = {self._word} if self._word is not None and not over else set()
        timeout = None if until == math.inf else max(0.0, until - self._now())
        done, _ = await asyncio.wait({*self._running, *listens}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done and (over or not self._waiting):
            return False
        for task in [task for task in self._running if task in done]:
            self._collect(task)
        if self.found:
            self.over_at = min(self.over_at, self._now() + GRACE_S)
        elif self._woken is not None and self._word in done:
            if stop():
                self.over_at = self._now() + GRACE_S
            else:
                self._ask_again(self._woken)
        return True

    def _collect(self, task: "asyncio.Task[list[T]]") -> None:
        number = self._running.pop(task)
        try:
            self.found += task.result()
        except Unavailable as error:
            self._failed = error
            self._missing.add(number)
        self._ends[number] = len(self.found)
        self._next_at = self._now()

    def _ask_again(self, woken: asyncio.Event) -> None:
        """Those that had nothing may have something now. They take their turn behind one that is being asked."""
        woken.clear()
        self._word = asyncio.ensure_future(woken.wait())
        busy = {*self._running.values(), *self._waiting, *self._missing}
        self._waiting += [number for number in self._order[::-1] if number not in busy]

    def leave(self) -> None:
        """Gives up those that have not answered."""
        if self._word is not None:
            self._word.cancel()
        for task in self._running:
            task.add_done_callback(lambda task: _give_back_late(task, self._give_back))
            task.cancel()
        self._missing.update(self._running.values(), self._waiting if len(self.found) < self._limit else ())

    def result(self) -> list[T]:
        if len(self.found) > self._limit:  # two that were asked side by side both had something
            self._give_back(self.found[self._limit :])
            self._missing.update(number for number, end in self._ends.items() if end > self._limit)
            del self.found[self._limit :]
        if self._failed is not None and not self.found:
            raise self._failed
        return self.found


async def first_of(looks: Collection[Awaitable[T | None]]) -> T | None:
    """Returns the first answer that is not None; the others are given up. None only where all say so: raises
    Unavailable where one failed and no other has it.
    """
    tasks = [asyncio.ensure_future(_answer(look)) for look in looks]
    failed: Unavailable | None = None
    try:
        for next_one in asyncio.as_completed(tasks):
            try:
                if (answer := await next_one) is not None:
                    return answer
            except Unavailable as error:
                failed = error
    finally:
        for task in tasks:
            _drop(task)
    if failed is not None:
        raise failed
    return None


async def all_that_answer(looks: Sequence[Awaitable[T]], missing: set[int], patience_s: float) -> list[T]:
    """Returns the answers that come in time. `missing` gets the places of those that do not. Raises Unavailable where
    none does.
    """
    tasks = [asyncio.ensure_future(_answer(look)) for look in looks]
    try:
        await asyncio.wait(tasks, timeout=patience_s)
    finally:
        late = [task for task in tasks if not task.done()]
        for task in late:
            _drop(task)
    failed: Unavailable | None = None
    answers: list[T] = []
    for place, task in enumerate(tasks):
        try:
            if task in late:
                raise Unavailable("a shard does not answer", retry_after=1)
            answers.append(task.result())
        except Unavailable as error:
            failed = error
            missing.add(place)
    if failed is not None and not answers:
        raise failed
    return answers


def _drop(task: "asyncio.Task[Any]") -> None:
    """Gives a look up, and does not wait for its end: a call of a store that is silent takes seconds to be given up."""
    task.cancel()
    task.add_done_callback(lambda task: task.cancelled() or task.exception())


async def _answer(work: Awaitable[T]) -> T:
    try:
        return await work
    except Fault as fault:
        raise unavailable(fault) from fault


def _give_back_late(task: "asyncio.Task[list[T]]", give_back: Callable[[Sequence[T]], None]) -> None:
    """It had leased before it was told: its answer and the word crossed."""
    if not task.cancelled() and task.exception() is None:
        give_back(task.result())
