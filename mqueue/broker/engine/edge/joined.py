"""Shards are joined here, at the edge: several are asked for one answer, and a silent one holds up no other.

A fetch asks one shard after the other, as long as each answers at once: what two gave for one place would have to go
back. Where one is silent for HEDGE_S the next is asked beside it. As soon as one has given something, those that are
still silent are given up, GRACE_S later: the leases that are there must not age. Those that are known to be away are
asked last, and only where no other has anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeVar

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
    once it is cancelled. `missing` gets those that gave no answer, and those of whose answer something is given back.
    `away`: is it known to give none now? Such a one is asked last; who has something does not wait for it, and who has
    nothing for `away_s`. `woken`: those that had
    nothing are asked again, unless it is to `stop`. Raises Unavailable where one failed and no other has anything;
    then, and where this is cancelled, nothing stays leased.
    """
    order = sorted(numbers, key=away)
    waiting = order[::-1]
    running: dict[asyncio.Task[list[T]], int] = {}
    word = None if woken is None else asyncio.ensure_future(woken.wait())
    found: list[T] = []
    ends: dict[int, int] = {}  # how many were found when a shard had answered
    failed: Unavailable | None = None
    try:
        while (waiting or running) and len(found) < limit:
            if found and all(map(away, (*waiting, *running.values()))):
                break
            patience = GRACE_S if found else away_s if not waiting and all(map(away, running.values())) else None
            if waiting and not (found and running):
                number = waiting.pop()
                running[asyncio.ensure_future(_answer(fetch(number, limit - len(found))))] = number
                patience = HEDGE_S if waiting else away_s if all(map(away, running.values())) else patience
            done, _ = await asyncio.wait({*running, word} if word else {*running}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done and (found or not waiting):
                break
            for task in [task for task in running if task in done]:
                number = running.pop(task)
                if (error := _collect(task, found)) is not None:
                    failed = error
                    missing.add(number)
                ends[number] = len(found)
            if woken is not None and word in done and not found and running:
                if stop():
                    break
                woken.clear()
                word = asyncio.ensure_future(woken.wait())
                waiting = waiting + [number for number in order[::-1] if number not in {*running.values(), *waiting, *missing}]
    except BaseException:
        give_back(found)
        found = []
        raise
    finally:
        _leave(running, word, give_back)
        missing |= {*running.values(), *waiting} if len(found) < limit else set()
    if len(found) > limit:  # two that were asked side by side both had something
        give_back(found[limit:])
        missing |= {number for number, end in ends.items() if end > limit}
        del found[limit:]
    if failed is not None and not found:
        raise failed
    return found


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
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    failed: Unavailable | None = None
    answers: list[T] = []
    for place, task in enumerate(tasks):
        try:
            answers.append(task.result())
        except (Unavailable, asyncio.CancelledError) as error:
            failed = error if isinstance(error, Unavailable) else Unavailable("a shard does not answer", retry_after=1)
            missing.add(place)
    if failed is not None and not answers:
        raise failed
    return answers


def _leave(running: "Iterable[asyncio.Task[list[T]]]", word: "asyncio.Task[object] | None", give_back: Callable[[Sequence[T]], None]) -> None:
    """Gives up those that have not answered."""
    if word is not None:
        word.cancel()
    for task in running:
        task.add_done_callback(lambda task: _give_back_late(task, give_back))
        task.cancel()


def _collect(task: "asyncio.Task[list[T]]", found: list[T]) -> Unavailable | None:
    """Adds what it gave; returns why it gave nothing."""
    try:
        found += task.result()
    except Unavailable as error:
        return error
    return None


async def _answer(work: Awaitable[T]) -> T:
    try:
        return await work
    except Fault as fault:
        raise unavailable(fault) from fault


def _give_back_late(task: "asyncio.Task[list[T]]", give_back: Callable[[Sequence[T]], None]) -> None:
    """It had leased before it was told: its answer and the word crossed."""
    if not task.cancelled() and task.exception() is None:
        give_back(task.result())
