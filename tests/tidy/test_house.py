"""The rules of the house that a linter does not know."""

import ast
import re
from pathlib import Path

import pytest

from mqueue.broker import failpoints
from mqueue.lifecycle import GONE, TRANSITIONS, State
from tests.moves import LUA, SQL, lines, moves, moves_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mqueue"
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}


def users(pattern: str) -> set[str]:
    return {name for name, text in SOURCES.items() if re.search(pattern, text)}


@pytest.mark.parametrize("path", SQL, ids=lambda p: p.stem)
def test_every_statement_is_used_and_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith(f"-- {path.stem}: ")
    assert users(rf'"{path.stem}"'), f"{path.name} is dead"


@pytest.mark.parametrize("path", SQL, ids=lambda p: p.stem)
def test_no_parameter_stands_in_quotes(path: Path) -> None:
    assert not re.search(r"'[^'\n]*%\([a-z_]+\)s[^'\n]*'", path.read_text())


@pytest.mark.parametrize("path", LUA, ids=lambda p: p.stem)
def test_every_script_is_used_and_has_a_contract(path: Path) -> None:
    head = path.read_text().splitlines()
    assert head[0].startswith(f"-- {path.stem}: ")
    for word in ("-- moves: ", "-- keys ", "-- args ", "-- returns "):
        assert any(line.startswith(word) for line in head), f"{path.name} has no line {word}"
    assert users(rf'_(?:run|try|call)\("{path.stem}"'), f"{path.name} is dead"


def test_each_library_stays_in_its_place() -> None:
    """The torture breaks the stores from outside."""
    allowed = ("mqueue/broker/cache/", "mqueue/torture/stage.py")
    assert all(name.startswith(allowed) for name in users(r"(?m)^(?:import|from) redis"))
    allowed = ("mqueue/broker/store/", "mqueue/broker/embedded/", "mqueue/torture/stage.py")
    assert all(name.startswith(allowed) for name in users(r"(?m)^(?:import|from) psycopg"))


def test_daemons_compose_no_statements() -> None:
    """A daemon decides and calls; what stands in one transaction is one method of a store."""
    modules = r"\bpsycopg\b|\bstore\.(?:write|queries|leader\.session)\b"
    calls = r"\.connection\b|\b_session\b|\.execute\(|\bsql\(|\bfenced\(|\.ask\("
    assert not {name for name in users(f"{modules}|{calls}") if name.startswith("mqueue/broker/daemons/")}


def test_time_is_read_in_one_place() -> None:
    """Wall time decides nothing outside the clock; the demo prints it for people."""
    readers = users(r"\btime\.time\(|datetime\.now\(")
    assert readers <= {"mqueue/clock.py", "mqueue/demo/__main__.py", "mqueue/demo/tasks.py"}, readers


def test_a_cancellation_is_not_swallowed() -> None:
    """`asyncio.wait_for` loses one that meets the end of what it waits for, before Python 3.12."""
    assert not users(r"asyncio\.wait_for\(")


def test_nothing_is_unpickled_or_evaluated() -> None:
    assert not users(r"\bimport pickle|\bpickle\.|(?<![.\w])eval\(|(?<![.\w])exec\(")


def test_every_failpoint_is_hit_somewhere() -> None:
    for name, _ in failpoints.POINTS:
        assert users(rf'hit\("{re.escape(name)}"'), name


def test_the_scripts_know_every_state() -> None:
    text = "".join(path.read_text() for path in (PACKAGE / "broker/cache/lua").rglob("*.lua"))
    for state in State:
        assert f"'{state.value.decode()}'" in text, state


CHANGES_A_STATE = re.compile(
    r"\b(?:with_state|place|place_or_delay|delay|spill|promote|end_leases|finish|fail|bury|take_away|wait_again|drop)\(|'l' \.\.|'UNLINK'"
)
WRITES_A_MESSAGE = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM|COPY) (?:message|lease|dead_letter)\b")


def test_the_moves_of_all_scripts_and_statements_are_the_table() -> None:
    performed: dict[tuple[State, str], set[State]] = {}
    for name, found in moves_of().items():
        for origin, event, targets in found:
            assert targets <= TRANSITIONS.get((origin, event), frozenset()), f"{name}: {origin.name} -{event}-> is not in the table"
            performed.setdefault((origin, event), set()).update(targets)
    assert performed == TRANSITIONS


def test_who_changes_a_state_names_its_moves() -> None:
    for path in LUA:
        text = path.read_text()
        assert not CHANGES_A_STATE.search(text) or moves(text), f"{path.name} changes states, and says nothing moves"
    for path in SQL:
        text = path.read_text()
        assert bool(WRITES_A_MESSAGE.search(text)) == bool(lines(text)), f"{path.name} has to say which moves it performs, or nothing"


def test_every_state_can_be_reached_and_left() -> None:
    assert set().union(*TRANSITIONS.values()) == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - GONE


PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


def contents(package: Path) -> list[str]:
    """Its modules and packages, as an essay names them."""
    modules = [path.name for path in package.glob("*.py") if not path.name.startswith("__")]
    return sorted(modules + [f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_essay_of_a_package_names_all_that_is_in_it(package: Path) -> None:
    """`    name.py` at the beginning of a line, and what it is behind it."""
    essay = ast.get_docstring(ast.parse((package / "__init__.py").read_text()), clean=False) or ""
    named = re.findall(r"(?m)^    ([a-z0-9_]+(?:\.py|/))  +\S", essay)
    assert sorted(named) == contents(package)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_folder_is_a_corridor(package: Path) -> None:
    assert len([name for name in contents(package) if name.endswith(".py")]) <= 16


def test_no_name_of_a_junk_drawer() -> None:
    assert not [name for name in SOURCES if Path(name).stem in {"utils", "helpers", "common", "manager", "misc"}]
