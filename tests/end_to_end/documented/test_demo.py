"""The demo, small: it tells the truth about what it ran, and says so when something is off."""

import os
import random
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mqueue.demo import load, report
from mqueue.demo.load import Queued
from mqueue.demo.report import Run
from tests import ROOT


def demo(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mqueue.demo", *arguments],
        capture_output=True, text=True, timeout=120, cwd=ROOT, env=os.environ | environment, check=False,
    )  # fmt: skip


def test_runs_all_jobs_and_leaves_nothing(data_dir: Path) -> None:
    told = demo("--jobs", "600", TMPDIR=str(data_dir), DATABASE_URLS="postgresql://nowhere/x", MQUEUE_NONSENSE="1")
    assert told.returncode == 0, told.stderr
    counts = {word: int(count) for word, count in re.findall(r"^(queued|processed|retried|dead) +(\d+)", told.stdout, re.MULTILINE)}
    assert counts["queued"] == 600
    assert counts["processed"] + counts["dead"] == 600
    assert counts["dead"] == max(1, load.DOOMED * 540 // load.JOBS)
    assert counts["retried"] == counts["dead"] + load.FLAKY * 540 // load.JOBS
    assert "600 queued" in told.stderr
    assert not list(data_dir.iterdir())
    assert not _processes_in(data_dir)


def _processes_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                found.append(process.pid)
    return found


def test_an_unusable_data_dir_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    told = demo("--data-dir", str(blocked / "data"))
    assert told.returncode == 1
    last = told.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert str(blocked) in last
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("jobs", [10, 100, 9_900])
def test_the_plan_has_every_kind(jobs: int) -> None:
    planned = load.plan(jobs, random.Random(1))
    assert len(planned) == jobs
    kinds = [kind for kind, _ in planned]
    assert set(kinds) == {"doomed", "flaky", "resize", "delayed", "greet"}
    assert all((item.delay is not None) == (kind == "delayed") for kind, item in planned)


QUEUED = {id: Queued("greet", 1, False, 1_000) for id in (1, 2, 3)}


def test_a_missing_job_is_told() -> None:
    found = report.tally(QUEUED, [Run(1, 1, 1_500, "done")], [2])
    assert found.missing == 1
    assert not found.complete


def test_a_job_both_done_and_dead_is_told() -> None:
    found = report.tally(QUEUED, [Run(id, 1, 1_500, "done") for id in QUEUED], [2])
    assert not found.missing
    assert not found.complete


def test_what_others_left_does_not_count() -> None:
    runs = [Run(id, 1, 1_500, "done") for id in (1, 2, 99)] + [Run(3, 1, 1_500, "failed"), Run(3, 2, 2_500, "failed")]
    found = report.tally(QUEUED, runs, [3, 98])
    assert found.complete
    assert (len(found.done), len(found.dead), found.retries, found.twice) == (2, 1, 1, 0)
    assert found.starts[3] == 1_500


def test_a_note_cut_short_is_left_out() -> None:
    assert report.parse(["7 1 1500 done\n", "8 1 15"]) == [Run(7, 1, 1_500, "done")]


def test_the_busiest_second() -> None:
    times = [0, 900_000, 1_100_000, 1_800_000, 5_000_000]
    assert report.busiest_second(Run(1, 1, time, "done") for time in times) == 3
