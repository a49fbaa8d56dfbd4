"""What newcomers forgot, and no test turned red: something declared that does nothing, a page that lacks something."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.routing import Route

from mqueue.broker.config import Settings
from mqueue.broker.http.app import Api
from mqueue.worker.tasks.options import CALL, PERIODIC, TASK
from tests.tidy.imports import ROOT, modules

SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in modules().values()}
DESIGN = (ROOT / "docs/design.md").read_text()
API = (ROOT / "docs/http-api.md").read_text()
DAEMONS = sorted(path.name for path in (ROOT / "mqueue/broker/daemons").glob("*.py") if path.name not in ("__init__.py", "lead.py"))


def read(name: str, pattern: str, declared_in: str) -> bool:
    """Does another file than the one that declares it read this?"""
    return any(re.search(pattern.format(re.escape(name)), text) for path, text in SOURCES.items() if path != declared_in)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_does_something(name: str) -> None:
    assert read(name, r"settings\.{}\b", "mqueue/broker/config.py") or f"self.{name}" in SOURCES["mqueue/broker/config.py"]


@pytest.mark.parametrize("name", sorted(TASK.options.keys() - TASK.sent.keys() - PERIODIC))
def test_an_option_of_a_task_does_something(name: str) -> None:
    """What is no field of its messages is read somewhere."""
    assert read(name, r"told\[\"{}\"\]", "mqueue/worker/tasks/options.py")


@pytest.mark.parametrize("name", sorted(CALL.options.keys() - CALL.sent.keys()))
def test_an_option_of_a_call_does_something(name: str) -> None:
    assert read(name, r"\"{}\"", "mqueue/worker/tasks/options.py")


def test_every_route_is_in_the_reference() -> None:
    api = Api(cast(Any, None), cast(Any, SimpleNamespace(schedules=None)), cast(Any, None))
    routes = {*api._hot, *(route.path for route in api._cold.routes if isinstance(route, Route))}
    words = {route: re.findall(r"/\w+", route) for route in routes}
    assert not [route for route, named in words.items() if not all(re.search(rf"{word}\b", API) for word in named)]


@pytest.mark.parametrize("name", DAEMONS)
def test_the_design_names_every_daemon(name: str) -> None:
    section = DESIGN.partition("\n## 4. ")[2].partition("\n## ")[0]
    assert f"`daemons/{name}`" in section
