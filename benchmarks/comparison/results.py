"""What a comparison measured: a number for each measure of each turn, their statistics, and their file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Measure:
    """`long` says in a chart what `heading` says in a table."""

    key: str
    heading: str
    long: str
    more_is_better: bool = True


MEASURES = (
    Measure("one", "one call at a time /s", "enqueue, one awaited call at a time"),
    Measure("many", "16 at once /s", "enqueue, 16 threads or coroutines of one process, one job a call"),
    Measure("bulk", "bulk /s", "enqueue, 1,000 jobs a call"),
    Measure("drain_1", "drain, 1 worker /s", "jobs run by one worker process"),
    Measure("drain_2", "drain, 2 workers /s", "jobs run by two worker processes"),
    Measure("p50_ms", "latency p50 ms", "from the call to the start of the job, 100 a second", more_is_better=False),
    Measure("p99_ms", "latency p99 ms", "the same", more_is_better=False),
    Measure("cpu_ms", "CPU ms a job", "processor time of all processes, to enqueue a job and to run it", more_is_better=False),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


@dataclass(frozen=True, slots=True)
class Statistics:
    least: float
    median: float
    most: float
    runs: int


def statistics(runs: Sequence[float]) -> Statistics:
    """`runs` has one number at least."""
    return Statistics(min(runs), median(runs), max(runs), len(runs))


@dataclass(slots=True)
class Outcome:
    """Of one system: `runs` are the numbers of its turns by measure, `failures` why a turn has none."""

    key: str
    name: str
    durability: str
    package: str = ""
    version: str = ""
    settings: str = ""
    runs: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, measures: dict[str, float]) -> None:
        for key, value in measures.items():
            self.runs.setdefault(key, []).append(value)

    def of(self, key: str) -> Statistics | None:
        return statistics(runs) if (runs := self.runs.get(key)) else None


@dataclass(slots=True)
class Result:
    """`seconds` is the length of each measure, `rounds` how many turns each system had."""

    date: str
    seconds: float
    rounds: int
    revision: str
    baseline: str | None
    machine: dict[str, Any]
    systems: list[Outcome]


def write(result: Result, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")


def read(file: Path) -> Result:
    kept = json.loads(file.read_text())
    return Result(**kept | {"systems": [Outcome(**system) for system in kept["systems"]]})
