"""What a type checker says of tasks: `mypy --strict` over typed_calls.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_wrong_calls_are_errors_and_right_ones_are_not(tmp_path: Path) -> None:
    file = Path(__file__).with_name("typed_calls.py")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", os.devnull, "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(file)], cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True)
    found = re.findall(r"calls\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    marked = re.findall(r"^(\d+):.*  # error: ([a-z-]+)$", numbered(file.read_text()), re.MULTILINE)
    assert found == marked, done.stdout + done.stderr


def numbered(text: str) -> str:
    return "\n".join(f"{number}:{line}" for number, line in enumerate(text.splitlines(), 1))
