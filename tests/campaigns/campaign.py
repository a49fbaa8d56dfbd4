"""How a campaign begins and ends: its options, the table of what it found, its verdict and exit code."""

import argparse
import statistics
from collections.abc import Iterable, Mapping

from mqueue.torture.judge import Verdict


def options(doc: str | None, **defaults: int | float) -> argparse.Namespace:
    """Each of the defaults can be given as `--name`. `doc`: what the campaign is."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default: {default}")
    return parser.parse_args()


def table(rows: Mapping[str, object], indent: str = "") -> list[str]:
    """A line each: names to the left, values to the right."""
    shown = {name: f"{value:,}" if isinstance(value, int | float) else str(value) for name, value in rows.items()}
    names, values = (max(map(len, column), default=0) for column in (shown, shown.values()))
    return [f"{indent}{name:{names}}  {value:>{max(values, 8)}}" for name, value in shown.items()]


def median(values: Iterable[float]) -> float:
    """Of none it is 0."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def violations(verdict: Verdict) -> dict[str, object]:
    """Rows of what must be zero."""
    return {name.replace("_", " "): count for name, count in verdict.bad().items()}


def finish(good: bool, report: Iterable[str], claim: str, more: Iterable[str] = ()) -> int:
    """Prints them, and whether the claim holds; the exit code. `more`: of what spoke against it."""
    for line in (*report, f"judged: {'good' if good else 'NOT good'} ({claim})", *more):
        print(line)
    return 0 if good else 1
