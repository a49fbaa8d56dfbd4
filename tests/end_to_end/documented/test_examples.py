"""The examples, as their READMEs start them: each ends by itself and finds what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

EXAMPLES = {
    "mailing": {"newsletters": 40, "codes": 3, "sent twice": 0, "dead letters": 1},
    "thumbnails": {"thumbnails": 24, "dead letters": 3},
    "leads": {"paid": 13, "trial": 15, "list": 30, "lookups": 60, "dead letters": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_does_what_it_says(name: str, data_dir: Path) -> None:
    environment = os.environ | {"TMPDIR": str(data_dir), "DATABASE_URLS": "postgresql://nowhere/x", "MQUEUE_NONSENSE": "1"}
    command = [sys.executable, "-m", f"examples.{name}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {words: int(number) for words, number in re.findall(r"^(\w+(?: \w+)?) +(\d+)", done.stdout, re.MULTILINE)}
    assert {words: told[words] for words in EXAMPLES[name]} == EXAMPLES[name], done.stdout
    assert not list(data_dir.iterdir())


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_readme_names_commands_that_are_there(name: str) -> None:
    text = (ROOT / "examples" / name / "README.md").read_text()
    assert f"python -m examples.{name}" in text
    done = subprocess.run(["make", f"example-{name}", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"-m examples.{name}\n" in done.stdout, done.stderr
    assert f"make example-{name} " in text
