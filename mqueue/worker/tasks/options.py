"""What a decorator and `options()` are told, checked right there: the broker would refuse it too, but far from the
mistake.

Raises TypeError for what is no such thing, ValueError for one that is out of range; each names the option and what it
may be.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, cast

from mqueue import message as m

PRIORITY_MAX = 2**31 - 1
LEASE_MIN_S = 0.05
BATCH_MAX = 1000  # as many as one poll brings
BATCH_WAIT_S = 0.2
BATCH_WAIT_MAX_S = 60.0
AHEAD_MAX_S = 100 * 365 * 86400.0  # of a delay, and a ttl
Seconds = float | timedelta

_NAME = re.compile(m.NAME_PATTERN)


def _said(option: str, value: object) -> str:
    """`Retry(max=…)` says where it stands."""
    return option.replace("…", repr(value)) if "…" in option else f"{option}={value!r}"


def number(option: str, value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{_said(option, value)}: {what}")
    return value if type(value) in (int, float) else float(value)  # of a kind of its own: numpy's, say


def seconds(option: str, value: Seconds, least: float, most: float, *, above: bool = False) -> float:
    """`above`: more than `least`."""
    given = value.total_seconds() if isinstance(value, timedelta) else value
    if type(given) is not float and type(given) is not int:
        given = number(option, given, _span(least, most, above))
    if not least <= given <= most or (above and given == least):
        raise ValueError(f"{_said(option, value)}: {_span(least, most, above)}")
    return given


def _span(least: float, most: float, above: bool) -> str:
    return f"seconds {'above' if above else 'from'} {least:g} to {most:,.0f}, or a timedelta"


def whole(option: str, value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{_said(option, value)}: a whole number from {least:,} to {most:,}")
    if not least <= value <= most:
        raise ValueError(f"{_said(option, value)}: a whole number from {least:,} to {most:,}")
    return int(value)  # of an enum, say


def priority(value: int) -> int:
    return whole("priority", value, -PRIORITY_MAX - 1, PRIORITY_MAX)


def max_retries(value: int | None) -> int | None:
    return None if value is None else whole("max_retries", value, 0, m.RETRIES_MAX)


def lease(value: Seconds | None) -> float | None:
    return None if value is None else seconds("lease", value, LEASE_MIN_S, m.LEASE_MAX_S)


def place(**names: str) -> None:
    """A topic, a namespace."""
    for option, value in names.items():
        if not isinstance(value, str):
            raise TypeError(f"{option}={value!r}: a text of 1 to {m.NAME_MAX} letters, digits, _ . -")
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} is no {option}: 1 to {m.NAME_MAX} of letters, digits, _ . -")


def of_process(in_process: bool, time_limit: Seconds | None, memory_limit_mb: float | None) -> tuple[float | None, float | None]:
    """The limits of a job that has a process of its own."""
    if not in_process and (time_limit is not None or memory_limit_mb is not None):
        raise ValueError("time_limit= and memory_limit_mb= need executor='process'")
    if time_limit is not None:
        time_limit = seconds("time_limit", time_limit, 0, AHEAD_MAX_S, above=True)
    if memory_limit_mb is not None and not 0 < number("memory_limit_mb", memory_limit_mb, "a number of MiB above 0") < float("inf"):
        raise ValueError(f"memory_limit_mb={memory_limit_mb!r}: a number of MiB above 0")
    return time_limit, memory_limit_mb


def of_run(in_process: bool, max_run_time: Seconds | None) -> float | None:
    """Of a job that shares its process with others."""
    if max_run_time is None:
        return None
    if in_process:
        raise ValueError("max_run_time= is for handlers on the loop and in threads: with executor='process' there is time_limit=")
    return seconds("max_run_time", max_run_time, 0, AHEAD_MAX_S, above=True)


def of_result(keeps: bool, ttl: Seconds | None) -> float:
    if ttl is None:
        return m.RESULT_TTL_S
    if not keeps:
        raise ValueError("result_ttl= needs result=True")
    return seconds("result_ttl", ttl, 0, m.RESULT_TTL_MAX_S, above=True)


def of_batch(size: int | None, wait: Seconds | None, executor: str | None) -> float:
    """The seconds to gather a batch for."""
    if size is None:
        if wait is not None:
            raise ValueError("batch_wait= needs batch=")
        return 0.0
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= BATCH_MAX:
        raise ValueError(f"batch={size!r}: a number of messages from 1 to {BATCH_MAX:,}")
    wait_s = BATCH_WAIT_S if wait is None else seconds("batch_wait", wait, 0, BATCH_WAIT_MAX_S)
    if executor is not None:
        raise ValueError(f"batch= and executor={executor!r} do not go together: a batch runs in a thread, or on the loop")
    return wait_s


def of_call(given: dict[str, Any]) -> dict[str, Any]:
    """Those of one call that are given: others are None."""
    chosen = {option: value for option, value in given.items() if value is not None}
    for option, value in chosen.items():
        match option:
            case "priority":
                chosen[option] = priority(value)
            case "max_retries":
                chosen[option] = max_retries(value)
            case "lease":
                chosen[option] = lease(value)
            case "delay" | "ttl":
                chosen[option] = seconds(option, value, 0, AHEAD_MAX_S, above=option == "ttl")
            case "namespace":
                place(namespace=value)
            case "idempotency_key":
                if not isinstance(value, str):
                    raise TypeError(f"idempotency_key={value!r}: a text of 1 to {m.KEY_MAX} characters")
                if not 1 <= len(value) <= m.KEY_MAX:
                    raise ValueError(f"idempotency_key has {len(value)} characters: 1 to {m.KEY_MAX}")
            case "metadata":
                if not isinstance(value, dict):
                    raise TypeError(f"metadata={value!r}: a dict, which is sent as a JSON object")
    return chosen


def errors(option: str, value: object) -> tuple[type[BaseException], ...]:
    """Types of exceptions: one, or any number of them."""
    given = (value,) if isinstance(value, type) else tuple(value) if isinstance(value, Iterable) else ()
    wrong = [each for each in given if not (isinstance(each, type) and issubclass(each, BaseException))]
    if wrong or not isinstance(value, type | Iterable):
        raise TypeError(f"{_said(option, value)}: types of exceptions, like (OSError, ValueError)")
    return cast(tuple[type[BaseException], ...], given)


def function(given: object) -> None:
    if not callable(given):
        raise TypeError(f"task({given!r}): it takes a function; options go by name, like topic=…")
    if not hasattr(given, "__qualname__"):
        raise TypeError(f"task({given!r}): it takes a function, not a {type(given).__name__}: write a def that calls it")
