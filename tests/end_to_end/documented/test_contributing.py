"""The commands of CONTRIBUTING.md do what the page says."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.waiting import wait_until

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = [
    re.split(r"\s+# ", line)[0]
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line
]


def here(command: str) -> str:
    """With this interpreter's folder in place of the page's environment."""
    return command.replace(".venv/bin/", f"{Path(sys.executable).parent}{os.sep}")


def sh(command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(["bash", "-c", here(command)], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_these_are_the_commands_of_the_page() -> None:
    """Each is run below, or says why not: another one is to be run, too."""
    assert [command.removeprefix(".venv/bin/") for command in COMMANDS] == [
        "make check",
        "make demo",
        "pre-commit install",  # it would change this checkout
        "python -m tests.simulation --seed 7",
        "python -m tests.simulation --seed 7 --trace",
        "python -m cProfile -o broker.prof -m mqueue.cli broker",
        "python -c \"import pstats; pstats.Stats('broker.prof').sort_stats('tottime').print_stats(20)\"",
        "python -m mqueue.worker.tasks.reference docs/worker.md",
    ]


@pytest.mark.parametrize("target", ["check", "demo", "test", "bench", "integration-test"])
def test_make_knows_the_targets(target: str) -> None:
    assert f"make {target}" in PAGE
    assert subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_the_hooks_are_sound() -> None:
    sh(".venv/bin/pre-commit validate-config")


def test_one_seed_of_the_simulation() -> None:
    one, traced = [sh(command) for command in COMMANDS if "tests.simulation" in command]
    assert "failed: none" in one and "failed: none" in traced
    assert len(traced.splitlines()) > len(one.splitlines())


def test_a_broker_is_profiled(data_dir: Path, tmp_path: Path) -> None:
    profile, show = [command for command in COMMANDS if "prof" in command]
    environ = os.environ | {"MQUEUE_DATA_DIR": str(data_dir), "MQUEUE_PORT": "0", "MQUEUE_METRICS_PORT": "0", "PYTHONPATH": str(ROOT)}
    command = here(profile).split()
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=out, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "ready" in (tmp_path / "out").read_text(), "the broker is ready", 120)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert "Ordered by: internal time" in sh(show, tmp_path)


def test_the_tables_of_options_are_written_by_the_command(tmp_path: Path) -> None:
    [command] = [command for command in COMMANDS if "reference" in command]
    page = tmp_path / "worker.md"
    page.write_text((ROOT / "docs/worker.md").read_text())
    sh(command.replace("docs/worker.md", str(page)))
    assert page.read_text() == (ROOT / "docs/worker.md").read_text()
