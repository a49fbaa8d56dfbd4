"""Several shards are asked for one answer: a silent one holds up no other, and nothing stays leased for nobody."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from mqueue.broker.engine.edge.joined import GRACE_S, HEDGE_S, all_that_answer, fetch_joined, first_of
from mqueue.errors import Unavailable
from tests.waiting import until

Shard = Callable[[int], Awaitable[list[str]]]
SOON_S = 2.0  # the silent ones below are silent for much longer
LONG_S = 60.0


def has(*messages: str) -> Shard:
    async def fetch(limit: int) -> list[str]:
        return [*messages][:limit]

    return fetch


async def silent(limit: int) -> list[str]:
    await asyncio.Event().wait()
    return []


async def fails(limit: int) -> list[str]:
    raise Unavailable("away", retry_after=1)


class Fetch:
    """`given_back`: what was leased and nobody gets. `missing`: who gave no answer."""

    def __init__(self, **shards: Shard) -> None:
        self.shards = list(shards.values())
        self.asked: list[int] = []
        self.given_back: list[str] = []
        self.missing: set[int] = set()

    async def __call__(
        self, limit: int = 10, away: tuple[int, ...] = (), away_s: float = LONG_S, woken: asyncio.Event | None = None
    ) -> list[str]:
        def fetch(number: int, limit: int) -> Awaitable[list[str]]:
            self.asked.append(number)
            return self.shards[number](limit)

        async with asyncio.timeout(SOON_S):
            return await fetch_joined(
                range(len(self.shards)), fetch, limit, self.missing, self.given_back.extend, away.__contains__, away_s, woken
            )  # fmt: skip


async def test_all_that_is_there_comes_and_nobody_is_missing() -> None:
    fetch = Fetch(a=has("1"), b=has(), c=has("2", "3"))
    assert await fetch(2) == ["1", "2"]
    assert (fetch.missing, fetch.given_back) == (set(), [])


async def test_a_silent_one_holds_up_no_other_and_is_named() -> None:
    fetch = Fetch(a=silent, b=has("1"))
    assert await fetch() == ["1"]
    assert fetch.missing == {0}


async def test_one_that_fails_is_named_where_others_have_something_and_is_the_answer_where_none_has() -> None:
    fetch = Fetch(a=fails, b=has("1"))
    assert (await fetch(), fetch.missing) == (["1"], {0})
    with pytest.raises(Unavailable, match="away"):
        await Fetch(a=fails, b=has())()


async def test_one_known_to_be_away_is_not_asked_where_others_have_something() -> None:
    fetch = Fetch(a=silent, b=has("1"))
    assert await fetch(away=(0,)) == ["1"]
    assert (fetch.asked, fetch.missing) == ([1], {0})


async def test_where_nobody_has_anything_one_that_is_away_is_waited_for_a_little() -> None:
    fetch = Fetch(a=silent, b=has())
    assert await fetch(away=(0,), away_s=0.05) == []
    assert (fetch.asked, fetch.missing) == ([1, 0], {0})


async def test_who_had_nothing_is_asked_again_when_woken() -> None:
    event = asyncio.Event()
    messages: list[str] = []
    fetch = Fetch(a=silent, b=lambda limit: has(*messages)(limit))
    waiting = asyncio.ensure_future(fetch(away=(0,), woken=event))
    await until(lambda: len(fetch.asked) == 2)
    messages.append("1")
    event.set()
    assert await waiting == ["1"]


async def test_who_had_nothing_is_asked_again_though_another_is_silent() -> None:
    event = asyncio.Event()
    messages: list[str] = []
    fetch = Fetch(a=lambda limit: has(*messages)(limit), b=silent)
    waiting = asyncio.ensure_future(fetch(woken=event))
    await until(lambda: fetch.asked == [0, 1])
    messages.append("1")
    event.set()
    assert (await waiting, fetch.missing) == (["1"], {1})


async def test_a_word_changes_nothing_once_something_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is silent, and messages go on coming to the other: the loop does not spin, and the lease does not age."""
    waits = 0
    wait = asyncio.wait

    async def counted(*args: object, **kwargs: object) -> object:
        nonlocal waits
        waits += 1
        return await wait(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(asyncio, "wait", counted)
    event = asyncio.Event()
    fetch = Fetch(a=has("1"), b=silent)
    waiting = asyncio.ensure_future(fetch(woken=event))
    await until(lambda: fetch.asked == [0, 1])
    began = time.monotonic()
    event.set()
    assert await waiting == ["1"]
    assert time.monotonic() - began < 2 * GRACE_S + 0.5
    assert waits < 10


async def test_one_that_is_slow_gets_its_time_though_another_has_something_and_a_third_waits() -> None:
    late = asyncio.Event()
    asyncio.get_running_loop().call_later(HEDGE_S + GRACE_S / 3, late.set)

    async def slow(limit: int) -> list[str]:
        await late.wait()
        return ["slow"]

    fetch = Fetch(a=slow, b=has("1"), c=has("2"))
    assert await fetch() == ["1", "slow", "2"]
    assert (fetch.missing, fetch.given_back) == (set(), [])


async def test_what_two_gave_for_one_place_goes_back() -> None:
    both = asyncio.Barrier(2)

    async def together(limit: int) -> list[str]:
        await both.wait()
        return ["x"]

    fetch = Fetch(a=together, b=together)
    assert await fetch(1) == ["x"]
    await until(lambda: fetch.given_back == ["x"])


async def test_what_was_found_goes_back_where_the_caller_is_gone() -> None:
    fetch = Fetch(a=has("1"), b=silent)
    waiting = asyncio.ensure_future(fetch())
    await until(lambda: fetch.asked == [0, 1])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert fetch.given_back == ["1"]


async def _says(answer: str | None) -> str | None:
    return answer


async def _never() -> str | None:
    await asyncio.Event().wait()
    return None


async def _away() -> str | None:
    raise Unavailable("away", retry_after=1)


async def test_the_first_that_has_it_answers() -> None:
    began = time.monotonic()
    assert await first_of([_never(), _says(None), _away(), _says("here")]) == "here"
    assert time.monotonic() - began < SOON_S


async def test_not_found_is_said_only_where_all_say_so() -> None:
    assert await first_of([_says(None), _says(None)]) is None
    with pytest.raises(Unavailable):
        await first_of([_away(), _says(None)])


async def test_a_view_has_the_answers_that_come_in_time() -> None:
    missing: set[int] = set()
    assert await all_that_answer([_says("a"), _away(), _never()], missing, 0.1) == ["a"]
    assert missing == {1, 2}
    with pytest.raises(Unavailable):
        await all_that_answer([_away()], set(), SOON_S)
