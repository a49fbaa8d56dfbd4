"""The models hold, and a rule taken away makes them fail: they can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(model: str, *args: str) -> str:
    done = subprocess.run([sys.executable, HERE / model, *args], capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_the_frontier_keeps_order() -> None:
    assert "300 runs hold" in run("frontier.py", "300")


def test_recovery_loses_nothing() -> None:
    assert "300 runs; hold" in run("recovery.py", "300")


@pytest.mark.parametrize("rule", ["low", "version", "prev", "duecap", "expirydirty"])
def test_without_a_rule_it_fails(rule: str) -> None:
    assert "runs; hold" not in run("recovery.py", "600", "--off", rule)
