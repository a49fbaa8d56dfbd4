"""No circle of imports, and nothing imported that is not declared."""

import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

import pytest

from tests.tidy import imports

PROJECT = tomllib.loads((imports.ROOT / "pyproject.toml").read_text())["project"]
# By folder, what may be imported beside the dependencies of everybody: the extras that bring it.
EXTRAS = {
    "mqueue/broker/": {"broker", "embedded"},
    "mqueue/torture/": {"broker", "embedded"},
    "mqueue/schedule.py": {"broker"},
    "mqueue/worker/program/changes.py": {"reload"},
    "mqueue/contrib/django/": {"django"},
    "mqueue/contrib/fastapi.py": {"fastapi"},
    "mqueue/contrib/flask.py": {"flask"},
    "mqueue/contrib/opentelemetry.py": {"opentelemetry"},
    "mqueue/contrib/sentry.py": {"sentry"},
    "mqueue/testing/plugin.py": {"dev"},  # pytest itself loads it
}
ABSENT = {"django": "django", "asgiref": "asgiref"}  # on Python 3.11 Django 6 cannot be installed


brought = cache(packages_distributions)  # which distributions bring a module: a look at all that is installed


def name_of(requirement: str) -> str:
    """`uvloop` of `uvloop>=0.21; sys_platform != 'win32'`."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def declared(path: str) -> set[str]:
    extras = {extra for prefix, names in EXTRAS.items() if path.startswith(prefix) for extra in names}
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {name_of(requirement) for each in lists for requirement in each}


def test_no_circle_of_imports() -> None:
    """Also not under TYPE_CHECKING, nor in functions."""
    assert imports.circles(imports.graph()) == []


@pytest.mark.parametrize("circle", [{"a": {"b"}, "b": {"c"}, "c": {"a"}}, {"a": {"a"}}])
def test_a_circle_is_found(circle: dict[str, set[str]]) -> None:
    assert imports.circles(circle) == [sorted(circle)]


@pytest.mark.parametrize("path", imports.modules().values(), ids=lambda p: p.relative_to(imports.ROOT).as_posix())
def test_what_is_imported_is_declared(path: imports.Path) -> None:
    for top in imports.third_party(path):
        names = {name.lower().replace("_", "-") for name in brought().get(top, [ABSENT.get(top, top)])}
        assert names & declared(path.relative_to(imports.ROOT).as_posix()), f"{top}, of {names}, is in no list of pyproject.toml"
