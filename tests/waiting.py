"""The one place where tests wait for a condition: `until` on a loop, `wait_until` without one.

Both look again and again, and return what they saw as soon as it is enough. A wait that reaches its deadline raises
`TooLate`, which says what was waited for and what was seen last. An error that `look` raises ends the wait at once,
unless it is one of `despite`: then it counts as something seen that is not enough.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")
Errors = type[BaseException] | tuple[type[BaseException], ...]

SECONDS = 20.0
PAUSE_S = 0.01
SEEN_MAX = 1000  # characters of what was seen last


class TooLate(AssertionError):
    """The deadline has passed, and what was waited for has not come."""


def anything(seen: object) -> bool:
    """Whatever it is, it is enough: the wait is for an answer without an error."""
    return True


def wait_until(
    look: Callable[[], T], what: str = "", seconds: float = SECONDS, *, enough: Callable[[T], object] = bool, despite: Errors = ()
) -> T:
    """Blocks until what `look` returns is enough, and returns that. Without `what` a lambda tells its own source."""
    seen: object = None
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = seen = look()
        except despite as error:
            seen = error
        else:
            if enough(found):
                return found
        if time.monotonic() >= deadline:
            _give_up(look, what, seconds, seen)
        time.sleep(PAUSE_S)


async def until(
    look: Callable[[], T | Awaitable[T]],
    what: str = "",
    seconds: float = SECONDS,
    *,
    enough: Callable[[T], object] = bool,
    despite: Errors = (),
) -> T:
    """Does the same on a loop. What `look` returns may be awaitable; it is given up at the deadline."""
    seen: object = None
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            while True:
                try:
                    answer = look()
                    found = seen = await answer if isinstance(answer, Awaitable) else answer
                except despite as error:
                    seen = error
                else:
                    if enough(found):
                        return found
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        if limit.expired():
            _give_up(look, what, seconds, seen)
        raise


def _give_up(look: Callable[[], object], what: str, seconds: float, seen: object) -> NoReturn:
    told = f"not within {seconds:g} s: {what or _source(look)}; seen last: {repr(seen)[:SEEN_MAX]}"
    raise TooLate(told) from (seen if isinstance(seen, BaseException) else None)


def _source(look: Callable[[], object]) -> str:
    """The line that a lambda stands in; the name of anything else."""
    name = getattr(look, "__qualname__", None) or repr(look)
    try:
        return inspect.getsource(look).strip() if name.endswith("<lambda>") else name
    except OSError:
        return name
