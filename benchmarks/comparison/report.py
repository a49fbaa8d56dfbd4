"""Tables for people are made from the files of results alone, and stand between markers in a page:

    <!-- benchmarks: KIND FILE -->
    ...
    <!-- benchmarks: end -->

FILE is one in `benchmarks/results`, KIND is `peers` (the table of the comparison), `systems` (how each ran), `brief` (a
sentence and the three measures of the chart) or `own` (the table of mqueue's own benchmarks).
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.comparison.environments import ROOT
from benchmarks.comparison.results import BY_KEY, MEASURES, Outcome, Result, Statistics, read
from benchmarks.peers.produce import PACE
from benchmarks.row import HEADING, KEPT, Row

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
MARKED = re.compile(r"(<!-- benchmarks: (\w+) (\S+) -->\n)(.*?)(<!-- benchmarks: end -->)", re.DOTALL)
LATENCY = ("p50_ms", "p99_ms")
BRIEF = ("one", "drain_1", "cpu_ms")


def fill(page: str, render: Callable[[str, str], str]) -> str:
    """Returns the page with what `render(KIND, FILE)` says between its markers."""
    return MARKED.sub(lambda found: f"{found[1]}\n{render(found[2], found[3])}\n\n{found[5]}", page)


def named(page: str, kind: str, file: str) -> str:
    """Returns the page with `file` in all its markers of this kind."""
    return re.sub(rf"<!-- benchmarks: {kind} \S+ -->", f"<!-- benchmarks: {kind} {file} -->", page)


def render(kind: str, file: str) -> str:
    place = RESULTS / file
    if kind == "own":
        return own(json.loads(place.read_text()))
    tables: dict[str, Callable[[Result], str]] = {"peers": comparison, "systems": systems, "brief": brief}
    return tables[kind](read(place))


def comparison(result: Result) -> str:
    """Median, and least to most where there were several runs."""
    lines = [("system", *(measure.heading for measure in MEASURES))]
    for outcome in result.systems:
        lines.append((outcome.name, *(cell(outcome, measure.key) for measure in MEASURES)))
    return f"{about(result)}\n\n{table(lines)}"


def cell(outcome: Outcome, key: str) -> str:
    """A system that ran fewer jobs a second than the latency sends has no idle queue to measure."""
    speed = outcome.of("drain_1")
    if not outcome.runs:
        return "failed"
    return "cannot keep up" if key in LATENCY and speed is not None and speed.median < PACE else span(outcome.of(key))


def systems(result: Result) -> str:
    return table([
        ("system", "version", "a job that is enqueued is in", "how it ran"),
        *((outcome.name, outcome.version, outcome.durability, outcome.settings) for outcome in result.systems),
    ])  # fmt: skip


def brief(result: Result) -> str:
    lines = [("system", "a job that is enqueued is in", *(BY_KEY[key].heading for key in BRIEF))]
    for outcome in result.systems:
        lines.append((outcome.name, outcome.durability, *(number(one.median) if (one := outcome.of(key)) else "–" for key in BRIEF)))
    return f"{about(result)}\n\n{table(lines)}"


def own(kept: dict[str, Any]) -> str:
    """`kept` is what `python -m benchmarks --json` wrote."""
    rows = [Row(**{name: row[name] for name in KEPT}) for row in kept["rows"]]
    return f"{kept['date']}, {_machine(kept['machine'])}:\n\n{table([HEADING, *(row.cells() for row in rows)])}"


def about(result: Result) -> str:
    """One sentence about the run; a page wraps its lines."""
    runs = f"{result.rounds} run{'s' if result.rounds > 1 else ''} of {result.seconds:g} s each"
    spread = "median (least–most) of " if result.rounds > 1 else ""
    before = f", before: {result.baseline}" if result.baseline else ""
    return f"{result.date}, {_machine(result.machine)}:\n{spread}{runs}; mqueue {result.revision}{before}."


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['cores']} cores ({machine['cpu']}), load before {machine['load']}, Python {machine['python']}"


def span(of: Statistics | None) -> str:
    if of is None:
        return "–"
    return number(of.median) if of.runs == 1 else f"{number(of.median)} ({number(of.least)}–{number(of.most)})"


def number(value: float) -> str:
    """Three digits are all that a measurement here is good for; thousands keep theirs."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown. The first line is the heading; columns of numbers are on the right."""
    heading, *rows = lines
    right = [bool(rows) and all(re.match(r"[\d–]|cannot|failed", row[column]) for row in rows) for column in range(len(heading))]
    rule = ["---:" if yes else "---" for yes in right]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (heading, rule, *rows))


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{outcome.name}: {why}" for outcome in outcomes for why in outcome.failures]
