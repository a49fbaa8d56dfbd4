"""What type checkers say of tasks: `mypy --strict` and pyright over typed_calls.py, pyright over the examples as
well.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@pytest.mark.slow
def test_wrong_calls_are_errors_and_right_ones_are_not(tmp_path: Path) -> None:
    file = Path(__file__).with_name("typed_calls.py")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", os.devnull, "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(file)], cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True)
    found = re.findall(r"calls\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    marked = re.findall(r"^(\d+):.*  # error: ([a-z-]+)$", numbered(file.read_text()), re.MULTILINE)
    assert found == marked, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.may_skip
def test_pyright_finds_the_same_lines_and_nothing_in_the_examples(tmp_path: Path) -> None:
    """It needs node, which it may have to download."""
    pyright = Path(sys.executable).with_name("pyright")
    if not pyright.exists() or subprocess.run([pyright, "--version"], cwd=tmp_path, capture_output=True, check=False).returncode != 0:
        pytest.skip("pyright does not run here")
    file = Path(__file__).with_name("typed_calls.py")
    command = [str(pyright), "--outputjson", "--pythonpath", sys.executable, str(file), str(ROOT / "examples")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    errors = [found for found in json.loads(done.stdout)["generalDiagnostics"] if found["severity"] == "error"]
    lines = {(Path(found["file"]).relative_to(ROOT).as_posix(), found["range"]["start"]["line"] + 1) for found in errors}
    marked = re.findall(r"^(\d+):.*  # error: [a-z-]+$", numbered(file.read_text()), re.MULTILINE)
    assert lines == {(file.relative_to(ROOT).as_posix(), int(number)) for number in marked}, done.stdout


def numbered(text: str) -> str:
    return "\n".join(f"{number}:{line}" for number, line in enumerate(text.splitlines(), 1))
