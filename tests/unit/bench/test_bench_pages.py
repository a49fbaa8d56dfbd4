"""No figure of a benchmark stands in a page that the benchmarks did not put there."""

from pathlib import Path

import pytest

from benchmarks.comparison import chart, report, results
from benchmarks.comparison.command import CHART


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_files_they_name(page: Path) -> None:
    text = page.read_text()
    assert report.MARKED.search(text)
    assert report.fill(text, report.render) == text, "run: python -m benchmarks report FILE"


def test_the_chart_is_of_the_same_file() -> None:
    [file] = {found[2] for page in report.PAGES for found in report.MARKED.findall(page.read_text()) if found[1] != "own"}
    assert CHART.read_text() == chart.draw(results.read(report.RESULTS / file))
