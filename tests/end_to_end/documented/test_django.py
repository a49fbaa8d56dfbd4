"""The tests of the Django backend, run by a newer Python where this one is too old for Django 6; on a real broker of
ours.
"""

import subprocess
import sys

import pytest

from tests import ROOT
from tests.processes.broker import Broker

PYTHON = ROOT / ".venv-django" / "bin" / "python"

if sys.version_info < (3, 12):  # else tests/contrib_django runs by itself

    @pytest.mark.may_skip
    def test_django() -> None:
        if not PYTHON.exists():
            pytest.skip("no environment with Django 6: make .venv-django/.installed needs a Python 3.12 or newer")
        with Broker() as broker:
            environment = Broker.environment({"MQUEUE_TEST_URL": broker.url, "MQUEUE_TEST_TOKEN": broker.token, "PYTHONDONTWRITEBYTECODE": "1"})
            command = [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", "tests/contrib_django"]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "100 passed" in done.stdout.splitlines()[-1], done.stdout
