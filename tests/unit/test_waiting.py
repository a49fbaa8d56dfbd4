"""How tests wait: they see what they wait for, and a wait that fails says what it saw."""

import asyncio
import time
from typing import Any

import pytest

from tests.waiting import PAUSE_S, TooLate, anything, until, wait_until

SHORT_S = 0.05


async def either(form: str, look: Any, *args: Any, **options: Any) -> Any:
    if form == "blocking":
        return await asyncio.to_thread(wait_until, look, *args, **options)
    if form == "async":
        return await until(look, *args, **options)

    async def ask() -> Any:
        return look()

    return await until(ask, *args, **options)


FORMS = pytest.mark.parametrize("form", ["blocking", "async", "async look"])


@FORMS
async def test_the_first_that_is_enough_is_returned(form: str) -> None:
    looks = iter([None, [], 0, "it", "another"])
    assert await either(form, lambda: next(looks)) == "it"
    assert await either(form, iter(range(10)).__next__, "five", enough=lambda n: n >= 5) == 5


@FORMS
async def test_the_deadline_is_kept_and_says_what_was_waited_for_and_what_was_seen(form: str) -> None:
    looks = 0

    def look() -> list[str]:
        nonlocal looks
        looks += 1
        return ["one"]

    began = time.monotonic()
    with pytest.raises(TooLate, match=r"^not within 0\.05 s: two of them; seen last: \['one'\]$"):
        await either(form, look, "two of them", SHORT_S, enough=lambda seen: len(seen) == 2)
    assert SHORT_S <= time.monotonic() - began < 5
    assert 1 < looks <= SHORT_S / PAUSE_S + 2


@FORMS
async def test_what_is_seen_at_last_is_told_in_short(form: str) -> None:
    with pytest.raises(TooLate) as caught:
        await either(form, lambda: "x" * 100_000, "nothing", SHORT_S, enough=lambda seen: not seen)
    assert len(str(caught.value)) < 1100


@FORMS
async def test_an_error_ends_the_wait_at_once(form: str) -> None:
    with pytest.raises(ZeroDivisionError):
        await either(form, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await either(form, lambda: 1, enough=lambda seen: seen / 0, despite=ZeroDivisionError)


@FORMS
async def test_an_error_that_is_expected_is_none(form: str) -> None:
    looks = iter([0, 0, 4])
    assert await either(form, lambda: 8 / next(looks), despite=ZeroDivisionError) == 2
    with pytest.raises(TooLate, match=r"never; seen last: ZeroDivisionError\('division by zero'\)$") as caught:
        await either(form, lambda: 1 / 0, "never", SHORT_S, despite=(OSError, ZeroDivisionError))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    looks = iter([0, 1])
    assert await either(form, lambda: 0 / next(looks), enough=anything, despite=ZeroDivisionError) == 0


@FORMS
async def test_a_timeout_of_what_is_looked_at_is_an_error_like_others(form: str) -> None:
    def look() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await either(form, look)
    with pytest.raises(TooLate, match="of its own"):
        await either(form, look, "it", SHORT_S, despite=TimeoutError)


async def test_a_look_that_hangs_is_given_up() -> None:
    with pytest.raises(TooLate, match="seen last: None"):
        await until(asyncio.Event().wait, "a word from nobody", SHORT_S)


def test_without_words_a_condition_tells_itself() -> None:
    here: list[int] = []
    with pytest.raises(TooLate, match=r"not within 0\.05 s: wait_until\(lambda: here == \[1\], seconds=SHORT_S\); seen last: False"):
        wait_until(lambda: here == [1], seconds=SHORT_S)
    with pytest.raises(TooLate, match=r"not within 0 s: Event\.is_set; seen last: False"):
        wait_until(asyncio.Event().is_set, seconds=0)
    with pytest.raises(TooLate, match=r"<lambda>; seen last"):
        wait_until(eval("lambda: False"), seconds=0)
