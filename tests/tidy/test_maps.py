"""The maps in the documentation are true: rooms, arrows, files, states, routes."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.routing import Route

from mqueue.broker.http.app import Api
from mqueue.lifecycle import TRANSITIONS, State
from tests.tidy import imports

ROOT = imports.ROOT
ARCHITECTURE = ROOT / "docs/ARCHITECTURE.md"
DESIGN = ROOT / "docs/design.md"
MAPS = [ARCHITECTURE, DESIGN, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/design").glob("*.md")), *sorted((ROOT / "docs/adr").glob("*.md"))]
PICTURES = re.findall(r"<!-- rooms: (\S+) -->\n```mermaid\nflowchart TD\n(.*?)```", ARCHITECTURE.read_text(), re.S)
FROM = ["", "mqueue/", "mqueue/broker/", "mqueue/broker/store/sql/", "mqueue/broker/cache/lua/", "docs/"]
NAMES = {path.name for folder in ROOT.iterdir() if folder.is_dir() and folder.name[0] != "." for path in folder.rglob("*")}


def diagram() -> str:
    """The states of a message and what moves it, as docs/design.md shows them: one arrow between two states."""
    events: dict[tuple[State, State], list[str]] = {}
    for (state, event), targets in TRANSITIONS.items():
        for target in targets:
            events.setdefault((state, target), []).append(event)
    order = list(State)
    arrows = sorted(events, key=lambda arrow: (order.index(arrow[0]), order.index(arrow[1])))
    lines = [f"    {state.name} --> {target.name}: {', '.join(events[state, target])}" for state, target in arrows]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


@pytest.mark.parametrize(("inside", "text"), PICTURES, ids=[inside for inside, _ in PICTURES])
def test_the_picture_of_the_rooms_is_true(inside: str, text: str) -> None:
    """Its arrows are the fewest that say which part needs which. Every folder is in it."""
    drawn = set(re.findall(r"(?m)^    (\w+)\[", text))
    arrows = set(re.findall(r"(?m)^    (\w+) --> (\w+)$", text))
    assert arrows == imports.picture(inside, drawn)
    folder = ROOT / inside.replace(".", "/")
    assert {path.parent.name for path in folder.glob("*/__init__.py")} <= drawn


def test_there_are_pictures_of_package_broker_and_worker() -> None:
    assert [inside for inside, _ in PICTURES] == ["mqueue", "mqueue.broker", "mqueue.worker"]


@pytest.mark.parametrize("page", MAPS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """In backticks: from the root, from the package or the broker, or by its name alone. NAME stands for any."""
    named = re.findall(r"`([\w./-]+(?:\.(?:py|sql|lua|md|toml)|/))`", page.read_text())
    lost = [name for name in named if not any((ROOT / start / name).exists() for start in FROM) and name not in NAMES and "NAME" not in name]
    assert not lost


@pytest.mark.parametrize("page", MAPS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_state_diagram_is_the_table_that_runs() -> None:
    begin, end = "<!-- lifecycle: begin -->", "<!-- lifecycle: end -->"
    shown = DESIGN.read_text().partition(begin)[2].partition(end)[0].strip()
    assert shown == diagram(), f"put this between the markers in docs/design.md:\n{diagram()}"


def test_the_design_lists_each_route_and_no_other() -> None:
    api = Api(cast(Any, None), cast(Any, SimpleNamespace(schedules=None)), cast(Any, None))
    there = {*api._hot, *(route.path for route in api._cold.routes if isinstance(route, Route)), "/metrics"}
    section = DESIGN.read_text().partition("## 10. ")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(?:(?:GET|POST|PUT|DELETE)`?,? ?`?)+ (/[\w/{}]+)`", section)) == there


def test_the_architecture_is_two_pages() -> None:
    prose = re.sub(r"```.*?```", "", ARCHITECTURE.read_text(), flags=re.S)
    assert len(prose.splitlines()) <= 120
