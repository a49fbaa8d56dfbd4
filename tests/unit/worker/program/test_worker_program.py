"""`mqueue worker`: its modules, their apps, its signals."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from fake_broker import FakeBroker

from mqueue import MQueue
from mqueue.client import Client
from mqueue.repeats import SAME_S
from mqueue.worker.program import program, work
from mqueue.worker.program.work import gather, load, union
from mqueue.worker.runtime import Worker
from mqueue.worker.sources import WorkerError
from tests import ROOT

PROGRAM = """
    import sys
    from mqueue import logs
    from mqueue.worker.program.program import run
    logs.configure()
    sys.exit(run(["jobs"], namespace=None, topics=[], concurrency=2, url=None, token=None, grace=30))
"""
JOBS = """
    import time
    from mqueue import task

    @task(topic="signalled")
    def work(seconds: float) -> None:
        print("working", flush=True)
        time.sleep(seconds)  # the job takes so long
        print("worked", flush=True)
"""


@pytest.mark.parametrize(("seconds", "signals", "left"), [(0.5, 1, 0), (60, 2, 1)])
def test_signals_end_the_process(broker: FakeBroker, tmp_path: Path, seconds: float, signals: int, left: int) -> None:
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    here = str(ROOT)
    environ = os.environ | {"MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token, "PYTHONPATH": here}
    with Client(broker.url, broker.token) as client:
        id = client.enqueue("signalled", b'{"task":"jobs.work","args":[%f]}' % seconds)
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM)], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None and process.stdout.readline() == "working\n"
                for n in range(signals):
                    process.send_signal(signal.SIGTERM if n == 0 else signal.SIGINT)
                    time.sleep((SAME_S + 0.1) * (n + 1 < signals))  # two that come together are one
                assert process.wait(15) == 0
            finally:
                process.kill()
        status = client.message(id)
        assert (status is not None) == bool(left)
        if status is not None:
            assert (status.state, status.attempts) == ("ready", 0)


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mqueue_broken_jobs.py").write_text("1 / 0")
    with pytest.raises(WorkerError, match="module mqueue_no_such_jobs: ModuleNotFoundError"):
        load(["mqueue_no_such_jobs"])
    with pytest.raises(WorkerError, match="module mqueue_broken_jobs: ZeroDivisionError"):
        load(["mqueue_broken_jobs"])


def app(name: str, url: str | None = None) -> MQueue:
    made = MQueue(url)
    made.task(name=name, topic=name)(lambda: None)
    return made


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes a module of each dict; their names. The default app is another one than this test run's."""
    monkeypatch.setattr(work, "default", MQueue())

    def make(*contents: dict[str, object]) -> list[str]:
        names = []
        for number, content in enumerate(contents):
            module = ModuleType(f"mqueue_test_module_{number}")
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            names.append(module.__name__)
        return names

    return make


def test_apps_are_found_by_the_modules_names_for_them(modules: Callable[..., list[str]]) -> None:
    one, two = app("one"), app("two")
    assert gather(modules({"app": one, "same": one, "other": 3}, {"app": one, "more": two, "empty": MQueue()})) == [one, two]
    assert union([one]) is one
    assert sorted(task.name for task in union([one, two])) == ["one", "two"]
    work.default.task(name="plain")(lambda: None)
    assert gather(modules({"app": one})) == [work.default, one]


def test_apps_that_cannot_be_run_together_are_told() -> None:
    with pytest.raises(WorkerError, match="'same' is taken"):
        union([app("same"), MQueue(), same_name()])
    with pytest.raises(WorkerError, match=r"several brokers \(http://a, http://b\)"):
        union([app("one", "http://a"), app("two", "http://b"), app("three")])
    assert union([app("one", "http://a"), app("two")]).producer.endpoint == ("http://a", None)


def same_name() -> MQueue:
    made = MQueue()

    @made.task(name="same")
    def other() -> None: ...

    return made


@pytest.mark.parametrize(("url", "token"), [("http://b", None), (None, "t"), ("http://b", "t")])
def test_jobs_that_enqueue_do_it_where_they_came_from(
    url: str | None, token: str | None, modules: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(make: Callable[[], Worker], *_: object) -> int:
        return 0

    def no_import(names: object) -> None: ...

    mine = app("one", "http://elsewhere")
    monkeypatch.setattr(work, "_serve", serve)
    monkeypatch.setattr(work, "load", no_import)
    program.run(modules({"app": mine}), namespace=None, topics=[], concurrency=1, url=url, token=token)
    assert mine.producer.endpoint == (url, token)


def test_a_worker_goes_to_its_apps_broker() -> None:
    mine = MQueue("http://b", "secret")
    mine.task(topic="t")(lambda: None)
    assert Worker(mine)._endpoint.url == "http://b" and Worker(mine)._endpoint.token == "secret"
    assert Worker(mine, url="http://c", token="t")._endpoint.token == "t"
    assert Worker(mine, url="http://c")._endpoint.token != "secret"
