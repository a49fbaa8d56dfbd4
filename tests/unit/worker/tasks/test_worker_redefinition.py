"""Who may take a task's name: the task itself, defined again; no other one beside it."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mqueue import Retry
from mqueue.worker.tasks.app import DuplicateTask, MQueue


@pytest.fixture
def app() -> MQueue:
    return MQueue("http://127.0.0.1:9")


def test_two_functions_may_not_share_a_name(app: MQueue) -> None:
    @app.task(name="same")
    def one() -> None: ...

    with pytest.raises(DuplicateTask, match=r"'same' is taken by .*_redefinition\.py:\d+ \(topic default/default\): .*_redefinition.py:\d+"):

        @app.task(name="same")
        def two() -> None: ...

    with pytest.raises(DuplicateTask, match="name=…"):
        app.task(name="same")(print)
    assert len(app) == 1


def test_two_functions_of_one_name_in_one_module_are_two(app: MQueue) -> None:
    @app.task
    def job() -> None: ...

    with pytest.raises(DuplicateTask):

        @app.task
        def job() -> None: ...

    with pytest.raises(DuplicateTask):
        [app.task(name="line")(each) for each in (lambda: 1, lambda: 2)]


@pytest.mark.parametrize(
    "others", [{"topic": "sms"}, {"max_retries": 3}, {"retry": Retry(max=1)}, {"result": True}, {"unique": "waiting"}, {"namespace": "n"}]
)
def test_two_tasks_of_one_factory_need_two_names(app: MQueue, others: dict[str, Any]) -> None:
    def make(**options: Any) -> Any:
        @app.task(**options)
        def job() -> None: ...

        return job

    make(topic="mail")
    with pytest.raises(
        DuplicateTask, match=r"job' is taken by .*:\d+ \(topic default/mail\): give that of .*:\d+ \(topic .*\) another: name=…"
    ):
        make(**{"topic": "mail", **others})
    make(**{"topic": "mail", **others}, name="other")
    assert len(app) == 2


def test_what_a_factory_makes_for_other_values_is_another_task(app: MQueue) -> None:
    def closing(kind: str, connection: object) -> Any:
        @app.task(name="closing")
        def job() -> Any:
            return kind, connection

        return job

    def defaulting(kind: str) -> Any:
        @app.task(name="defaulting")
        def job(kind: str = kind) -> None: ...

        return job

    for make in (lambda kind: closing(kind, object()), defaulting):
        make("mail")
        assert make("mail") is not None
        with pytest.raises(DuplicateTask):
            make("sms")


def unwrapped(function: Callable[[], None]) -> Callable[[], None]:
    def wrapper() -> None:
        function()

    return wrapper


def test_wrappers_that_hide_the_function_need_names(app: MQueue) -> None:
    @app.task
    @unwrapped
    def one() -> None: ...

    with pytest.raises(DuplicateTask):

        @app.task
        @unwrapped
        def two() -> None: ...


def test_the_same_may_be_made_again(app: MQueue) -> None:
    def make() -> Any:
        @app.task(name="again")
        def again() -> None: ...

        return again

    first, second = make(), make()
    assert app.get("again") is second is not first
    whole = MQueue()
    for _ in range(2):
        whole.include(app)
    assert list(whole) == [second]


SOURCE = """
from mqueue import MQueue
from test_worker_redefinition import unwrapped
app = MQueue() if "app" not in globals() else app
@app.task(topic="a")
def job(): return 1
@app.task(topic="c")
@unwrapped
def wrapped(): ...
"""


def test_a_module_may_be_reloaded_whatever_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reloaded_tasks.py"
    file.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("reloaded_tasks")
    first = module.job
    importlib.reload(module)
    assert module.app.get(first.name) is module.job is not first
    file.write_text(SOURCE.replace('@app.task(topic="a")', '\n\n@app.task(topic="b", max_retries=3)').replace("return 1", "return 22222"))
    importlib.reload(module)
    assert module.job() == 22222
    assert {task.topic for task in module.app} == {"b", "c"}
    file.write_text(SOURCE + "@app.task\ndef job(): ...\n")
    with pytest.raises(DuplicateTask, match=r"reloaded_tasks\.job"):
        importlib.reload(module)


def test_a_cell_of_a_notebook_may_be_run_again(app: MQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    main.app = app  # type: ignore[attr-defined]

    def run(source: str, file: str) -> None:
        exec(compile(source, file, "exec"), vars(main))

    cell = "@app.task(topic={!r}, name='job')\ndef job():\n    return {}\n"
    run(cell.format("a", 1), "/kernel/1.py")
    run(cell.format("a", 1), "/kernel/1.py")
    run("\n\n" + cell.format("b", 2), "/kernel/2.py")
    [job] = app
    assert (job(), job.topic) == (2, "b")
    with pytest.raises(DuplicateTask):
        run(cell.format("a", 1) * 2, "/kernel/3.py")
    main.__file__ = "/srv/program.py"
    with pytest.raises(DuplicateTask):
        run(cell.format("a", 1), "/kernel/4.py")
    run(cell.format("a", 3), "<stdin>")
