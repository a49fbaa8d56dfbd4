"""A row is one line of the result."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

HEADING = ("benchmark", "what", "median", "runs", "target", "")
KEPT = ("benchmark", "what", "unit", "runs", "target", "more_is_better")  # of a row in a file; with `value` and `verdict`


@dataclass(frozen=True, slots=True)
class Row:
    """`runs` repeat the same measurement, and their median counts. `target` is None where there is none."""

    benchmark: str
    what: str
    unit: str
    runs: Sequence[float]
    target: float | None = None
    more_is_better: bool = True
    value: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", median(self.runs))

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "ok" if (self.value >= self.target if self.more_is_better else self.value <= self.target) else "missed"

    def cells(self) -> tuple[str, ...]:
        """Returns what a table shows of it, by HEADING."""
        sign = "≥" if self.more_is_better else "≤"
        target = f"{sign} {_number(self.target)}" if self.target is not None else ""
        runs = " ".join(_number(run) for run in self.runs) if len(self.runs) > 1 else ""
        return self.benchmark, self.what, f"{_number(self.value)} {self.unit}", runs, target, self.verdict


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(rows: Sequence[Row]) -> list[str]:
    lines = [HEADING, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
