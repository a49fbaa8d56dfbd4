"""The comparison runs: mqueue and one peer that needs no package of its own, for the shortest time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.comparison.results import MEASURES
from tests import ROOT


@pytest.mark.slow
def test_a_short_comparison(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ["--only", "mqueue,skip-locked", "--seconds", "0.2", "--rounds", "1", "--out", str(file)]
    command = [sys.executable, "-m", "benchmarks", "peers", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    kept = json.loads(file.read_text())
    assert [system["name"] for system in kept["systems"]] == ["mqueue, async client", "bare PostgreSQL, SKIP LOCKED"]
    for system in kept["systems"]:
        assert system["failures"] == [] and system["runs"].keys() == {measure.key for measure in MEASURES}
        assert all(len(runs) == 1 and runs[0] > 0 for runs in system["runs"].values())
    assert "| mqueue, async client |" in done.stdout and "2 of 2" in done.stderr
