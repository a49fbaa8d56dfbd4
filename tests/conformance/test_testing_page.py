"""docs/testing.md: its module and its tests, run by a pytest of their own."""

import re
from pathlib import Path

import pytest

from mqueue.paths import Endpoint

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_pages_tests_pass(pytester: pytest.Pytester, mqueue_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQUEUE_TEST_URL", mqueue_endpoint.url)
    monkeypatch.setenv("MQUEUE_TEST_TOKEN", mqueue_endpoint.token or "")
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        name, _, code = block.partition("\n")
        (pytester.path / name.removeprefix("# ")).write_text(code)
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", timeout=120).assert_outcomes(passed=5)
