"""These checks look at one value each, where it is written: the broker would refuse it too, but far from there.

Each check takes the name of the option and its value, and returns the value as it is kept. It raises TypeError for a
value of another kind and ValueError for one that is out of range; the error names the option and says what it may be.
"""

import re
from collections.abc import Container, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from mqueue import message as m

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = timedelta(microseconds=m.TIME_MAX_US)

Seconds = float | timedelta

_NAME = re.compile(m.NAME_PATTERN)


def _said(option: str, value: object) -> str:
    """An option that stands inside another is named with its place: `Retry(max=…)`."""
    return option.replace("…", repr(value)) if "…" in option else f"{option}={value!r}"


def number(option: str, value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{_said(option, value)}: {what}")
    return value if type(value) in (int, float) else float(value)  # of a kind of its own: numpy's, say


def seconds(option: str, value: Seconds, least: float, most: float, *, above: bool = False) -> float:
    """This checks a duration. With `above`, it must be more than `least`."""
    given = value
    if type(given) is not float and type(given) is not int:
        given = number(option, in_seconds(option, given), _span(least, most, above))
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


def place(option: str, value: str) -> str:
    """This checks the name of a topic or of a namespace."""
    if not isinstance(value, str):
        raise TypeError(f"{option}={value!r}: a text of 1 to {m.NAME_MAX} letters, digits, _ . -")
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no {option}: 1 to {m.NAME_MAX} of letters, digits, _ . -")
    return value


def text(option: str, value: str) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{option}={value!r}: a text that is not empty")
    return value


def key(option: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{option}={value!r}: a text of 1 to {m.KEY_MAX} characters")
    if not 1 <= len(value) <= m.KEY_MAX:
        raise ValueError(f"{option} has {len(value)} characters: 1 to {m.KEY_MAX}")
    return value


def choice(option: str, value: object, choices: Container[object], says: str) -> object:
    if value not in choices:
        raise ValueError(f"{option}={value!r}: {says}")
    return value


def mebibytes(option: str, value: float) -> float:
    if not 0 < number(option, value, "a number of MiB above 0") < float("inf"):
        raise ValueError(f"{option}={value!r}: a number of MiB above 0")
    return value


def size(option: str, value: int, most: int) -> int:
    """This checks how many messages a batch has."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{option}={value!r}: a number of messages from 1 to {most:,}")
    return value


def instant(option: str, value: datetime) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError(f"{option}={value!r}: a datetime with a time zone")
    if value.tzinfo is None:
        raise ValueError(f"{option}={value!r} has no time zone")
    if not timedelta() <= value - EPOCH <= LATEST:  # as the broker checks it, but before anything is sent
        raise ValueError(f"{option}={value!r}: a time from 1970 to 2220")
    return value


def mapping(option: str, value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{option}={value!r}: a dict, which is sent as a JSON object")
    return value


def truth(option: str, value: object) -> bool:
    return bool(value)


def as_given(option: str, value: Any) -> Any:
    """This checks nothing: it is for an option that is checked elsewhere, together with others."""
    return value


def in_seconds(option: str, value: Any) -> Any:
    """This checks nothing either, and makes a timedelta seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def errors(option: str, value: object) -> tuple[type[BaseException], ...]:
    """This checks types of exceptions: one, or any number of them."""
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
