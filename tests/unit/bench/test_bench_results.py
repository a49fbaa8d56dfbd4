"""What a comparison measured: its statistics, its file, the tables and the chart that are made of it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.comparison import chart, report, results
from benchmarks.comparison.command import choose
from benchmarks.comparison.results import Outcome, Result, Statistics
from benchmarks.row import Row, table
from tests import ROOT

MACHINE = {"cores": 2, "cpu": "A <fast> one", "load": 0.5, "python": "3.12.1"}


def result(rounds: int = 3) -> Result:
    ours = Outcome("mqueue", "mqueue, async client", "log", "mqueue", "abc1234", "100 slots")
    theirs = Outcome("other", "Other | one", "Redis", "other", "1.2", "8 threads")
    broken = Outcome("broken", "Broken", "Redis", failures=["it said nothing"])
    for number in range(rounds):
        ours.add({"one": 1_000.0 + number, "bulk": 50_000.0, "drain_1": 9_000.0, "p50_ms": 1.234, "cpu_ms": 0.5})
        theirs.add({"one": 500.0, "drain_1": 50.0, "p50_ms": 900.0, "cpu_ms": 2.0})
    return Result("2026-01-02", 2.0, rounds, "abc1234", None, MACHINE, [ours, theirs, broken])


@pytest.mark.parametrize(("runs", "least", "median", "most"), [([3.0], 3, 3, 3), ([3.0, 1.0], 1, 2, 3), ([5.0, 1.0, 2.0], 1, 2, 5)])
def test_statistics(runs: list[float], least: float, median: float, most: float) -> None:
    assert results.statistics(runs) == Statistics(least, median, most, len(runs))


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    results.write(result(), tmp_path / "new" / "kept.json")
    assert results.read(tmp_path / "new" / "kept.json") == result()


@pytest.mark.parametrize(("value", "shown"), [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12_345.6, "12,346")])
def test_numbers(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_the_table_says_median_least_and_most_of_how_many_runs() -> None:
    said = report.comparison(result())
    assert "2026-01-02, 2 cores (A <fast> one)" in said and "median (least–most) of 3 runs of 2 s each; mqueue abc1234." in said
    assert "| mqueue, async client | 1,001 (1,000–1,002) | – | 50,000 (50,000–50,000) |" in said


def test_one_run_has_no_spread() -> None:
    said = report.comparison(result(1))
    assert "1 run of 2 s each" in said and "| mqueue, async client | 1,000 | – | 50,000 | 9,000 |" in said


def test_a_queue_that_never_idles_has_no_latency() -> None:
    """Other runs 50 jobs a second, and the latency sends 100."""
    [line] = [line for line in report.comparison(result(1)).splitlines() if "Other" in line]
    assert line == "| Other / one | 500 | – | – | 50.0 | – | cannot keep up | cannot keep up | 2.00 |"


def test_what_failed_says_so() -> None:
    assert "| Broken | failed |" in report.comparison(result(1))
    assert report.failures(result().systems) == ["Broken: it said nothing"]


def test_the_durability_is_named() -> None:
    assert "| mqueue, async client | abc1234 | log | 100 slots |" in report.systems(result())
    assert "| mqueue, async client | log | 1,001 | 9,000 | 0.50 |" in report.brief(result())


def test_a_page_is_filled_between_its_markers_alone() -> None:
    page = "before\n<!-- benchmarks: peers old.json -->\nstale\n<!-- benchmarks: end -->\nafter\n"
    page = report.named(page, "peers", "new.json")
    filled = report.fill(page, lambda kind, file: f"{kind} of {file}")
    assert filled == "before\n<!-- benchmarks: peers new.json -->\n\npeers of new.json\n\n<!-- benchmarks: end -->\nafter\n"
    assert report.fill(filled, lambda kind, file: f"{kind} of {file}") == filled


def test_the_chart_has_a_bar_for_each_number() -> None:
    drawn = ElementTree.fromstring(chart.draw(result()))
    bars = drawn.findall("{http://www.w3.org/2000/svg}rect")
    assert [bar.get("class") for bar in bars] == ["ours", "theirs"] * 3
    one, other = (float(bar.get("width") or 0) for bar in bars[:2])
    assert other == pytest.approx(one * 500 / 1_001, abs=0.1)
    assert "Other | one" in ["".join(text.itertext()) for text in drawn.findall("{http://www.w3.org/2000/svg}text")]


def test_systems_are_chosen_by_name() -> None:
    assert [system.key for system in choose("rq,mqueue", with_baseline=False)] == ["mqueue", "rq"]
    assert [system.key for system in choose("mqueue", with_baseline=True)] == ["mqueue", "mqueue@baseline"]
    assert not [system.key for system in choose(None, with_baseline=False) if "@" in system.key]
    with pytest.raises(Exception, match="no such system: nope"):
        choose("nope", with_baseline=False)


def test_every_peer_is_a_module_and_every_module_a_peer() -> None:
    from benchmarks.comparison.systems import ALL

    modules = {path.stem for path in (ROOT / "benchmarks" / "peers").glob("with_*.py")}
    assert {system.module for system in ALL.values()} == modules


def test_every_package_of_the_peers_is_pinned() -> None:
    lines = [line for line in (ROOT / "benchmarks/peers/requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[\w-]+(\[\w+\])?==[\d.]+", line) for line in lines)


def test_the_rows_of_our_own_benchmarks() -> None:
    rows = [Row("drain", "one worker", "jobs/s", [9_000, 11_000], 10_000), Row("latency", "p50", "ms", [3.5], 3, more_is_better=False)]
    assert [line.split() for line in table(rows)][1:] == [
        ["drain", "one", "worker", "10,000", "jobs/s", "9,000", "11,000", "≥", "10,000", "ok"],
        ["latency", "p50", "3.50", "ms", "≤", "3.00", "missed"],
    ]
