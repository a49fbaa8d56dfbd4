"""The options of several commands take these types: a duration, a finite number, a name."""

import math
import re
from typing import Any

import click

DURATION_MAX_S = 100 * 365 * 86_400.0
UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """It turns `10s`, `5m`, `1h`, `2d`, `250ms` or plain seconds into seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no duration: like 10s, 5m, 1h, 2d or plain seconds", param, ctx)
        seconds = float(found[1]) * UNITS_S[found[2]]
        if seconds > DURATION_MAX_S:
            self.fail(f"{value[:40]!r} is no duration: more than 100 years", param, ctx)
        return seconds


class Number(click.FloatRange):
    """It is a range without `nan` and `inf`, which click's own lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number that can be counted to", param, ctx)
        return number


class Name(click.ParamType):  # type: ignore[type-arg]
    """It names a namespace, a topic or a worker."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from mqueue import message as m

        if not re.fullmatch(m.NAME_PATTERN, value):
            self.fail(f"{value!r} is no name: 1 to {m.NAME_MAX} of letters, digits, _ . -", param, ctx)
        return str(value)


DURATION = Duration()
NAME = Name()
