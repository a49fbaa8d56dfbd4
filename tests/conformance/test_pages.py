"""docs/testing.md and docs/integrations.md: their modules, run. (The Django part: tests/contrib_django.)"""

import os
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mqueue.paths import Endpoint
from mqueue.testing import TestBroker
from tests import ROOT

pytest_plugins = ["pytester"]
DOCS = ROOT / "docs"


def write(page: str, folder: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL):
        name, _, code = block.partition("\n")
        file = folder / name.removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)


def test_the_testing_pages_tests_pass(pytester: pytest.Pytester, mqueue_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQUEUE_TEST_URL", mqueue_endpoint.url)
    monkeypatch.setenv("MQUEUE_TEST_TOKEN", mqueue_endpoint.token or "")
    write("testing.md", pytester.path)
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", timeout=120).assert_outcomes(passed=5)


@pytest.fixture
def integrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("integrations.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_the_fastapi_of_the_page(integrations: None, mqueue_broker: TestBroker, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module("orders_api")
    with TestClient(module.app) as http:
        id = http.post("/orders/7").json()["job"]
        assert http.get(f"/jobs/{id}").json() in ("ready", "waiting")
        mqueue_broker.run_until_idle()
        assert http.get(f"/jobs/{id}").json() == "gone"
    assert "shipped 7" in capsys.readouterr().out.splitlines()


def test_the_flask_of_the_page(
    integrations: None, mqueue_broker: TestBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_MQUEUE_URL", "http://127.0.0.1:9")
    module = import_module("orders_site")
    assert module.app.config["MQUEUE_URL"] == "http://127.0.0.1:9"
    assert module.app.test_client().post("/orders/7").json == {"number": 7}
    mqueue_broker.run_until_idle()
    assert "hello: shipped 7" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("first", ["reports_site", "reports_tasks"])
def test_the_flask_of_the_page_in_processes(
    first: str, tmp_path: Path, integrations: None, mqueue_broker: TestBroker, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A worker imports the one module first, a process of the task the other."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for name in ("reports_site", "reports_tasks"):
        sys.modules.pop(name, None)
    import_module(first)
    assert import_module("reports_site").app.test_client().post("/reports/7").json == {"number": 7}
    mqueue_broker.run_until_idle()
    assert "reports: report 7" in capfd.readouterr().out.splitlines()


def test_a_process_without_the_last_line_of_the_page_says_what_is_missing(
    tmp_path: Path, integrations: None, mqueue_broker: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    tasks = tmp_path / "reports_tasks.py"
    tasks.write_text(tasks.read_text().replace("import reports_site", "# ").replace("time_limit=60", "max_retries=0"))
    for name in ("reports_site", "reports_tasks"):
        sys.modules.pop(name, None)
    import_module("reports_site").app.test_client().post("/reports/7")
    mqueue_broker.run_until_idle()
    [dead] = mqueue_broker.dead_letters("reports")
    assert dead.error is not None and "the task's own module must import that one, in its last line" in dead.error


def test_the_traces_of_the_page(integrations: None, mqueue_broker: TestBroker, capsys: pytest.CaptureFixture[str]) -> None:
    import_module("traced").ship.enqueue(7)
    mqueue_broker.run_until_idle()
    assert "shipped 7" in capsys.readouterr().out.splitlines()
