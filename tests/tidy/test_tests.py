"""The rules of the tests themselves."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = {path.relative_to(TESTS).as_posix(): path.read_text() for path in sorted(TESTS.rglob("*.py"))}
FOLDERS = sorted({path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py")})
UNPACED = ("unit/", "integration/", "conformance/", "contrib_django/", "end_to_end/", "processes/")
SLEEPS_MAX = 55
CORRIDORS = {"unit": 90}  # a file for each module of the package
SLEEP = re.compile(r"\bsleep\((?!0\)|seconds: )")


def imported(text: str) -> set[str]:
    """The modules that it imports, by their full names."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return names | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def bare_sleeps(text: str) -> list[str]:
    """Lines that sleep and do not say why."""
    return [line.strip() for line in text.splitlines() if SLEEP.search(line) and "#" not in line and "assert" not in line]


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(UNPACED)])
def test_a_sleep_says_why_it_is_not_a_wait_for_a_condition(name: str) -> None:
    """Conditions are waited for by `waiting`. Campaigns pace their load, and the simulation's clock jumps."""
    assert bare_sleeps(FILES[name]) == []


def test_a_bare_sleep_is_seen() -> None:
    text = "time.sleep(0.1)\nawait asyncio.sleep(0)\nsleep(PAUSE_S)\nsleep(1)  # the loop is blocked\ndef sleep(seconds: float): ..."
    assert bare_sleeps(text) == ["time.sleep(0.1)", "sleep(PAUSE_S)"]


def test_sleeps_are_few() -> None:
    """Of those that say why. A new one should take the place of another."""
    counts = {name: len(SLEEP.findall(text)) for name, text in FILES.items() if name.startswith(UNPACED)}
    assert sum(counts.values()) <= SLEEPS_MAX, {name: count for name, count in counts.items() if count}


def test_conditions_are_waited_for_in_one_place() -> None:
    pattern = re.compile(r"def (?:async_)?(?:until|wait_until|wait_for|eventually|until_true)\(")
    assert [name for name, text in FILES.items() if pattern.search(text)] == ["waiting.py"]


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("campaigns/", "processes/", "waiting"))])
def test_what_is_shared_knows_no_test(name: str) -> None:
    """Imports point down: tests, campaigns, processes, waiting."""
    above = {"campaigns/": ("tests.end_to_end",), "processes": ("tests.end_to_end", "tests.campaigns"), "waiting.p": ("tests",)}
    assert not [module for module in imported(FILES[name]) if module.startswith(above[next(k for k in above if name.startswith(k))])]
    assert not [module for module in imported(FILES[name]) if ".test_" in module]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_is_a_corridor(folder: str) -> None:
    modules = [name for name in FILES if Path(name).parent.as_posix() == folder and not Path(name).name.startswith("__")]
    assert len(modules) <= CORRIDORS.get(folder, 16)
