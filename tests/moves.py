"""The moves that Lua scripts and SQL statements name in their headers: `-- moves: READY -fetch-> LEASED, ...`."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mqueue.lifecycle import State

BROKER = Path(__file__).parents[1] / "mqueue/broker"
LUA = sorted((BROKER / "cache/lua").glob("*.lua"))
SQL = sorted((BROKER / "store/sql").glob("*.sql"))
NOTHING = "nothing"


class Move(NamedTuple):
    origin: State
    event: str
    targets: frozenset[State]


def lines(text: str) -> list[str]:
    return re.findall(r"(?m)^-- moves: (.+)$", text)


def moves(text: str) -> list[Move]:
    """Raises ValueError, KeyError where a line of a header is not as it should be."""
    found = []
    for move in (part for line in lines(text) if line != NOTHING for part in line.split(", ")):
        shape = re.fullmatch(r"([A-Z]+) -([a-z_]+)-> ([A-Z]+(?: [A-Z]+)*)", move)
        if shape is None:
            raise ValueError(f"no move: {move!r}")
        found.append(Move(State[shape[1]], shape[2], frozenset(State[name] for name in shape[3].split())))
    return found


@cache
def moves_of() -> dict[str, list[Move]]:
    """By the file of a script or a statement."""
    return {path.name: moves(path.read_text()) for path in (*LUA, *SQL)}


def reachable(origin: State, ran: Iterable[str]) -> set[State]:
    """Where a message may be after these scripts and statements (their files), in any order and number."""
    steps = [move for name in ran for move in moves_of().get(name, [])]
    found, size = {origin}, 0
    while size < len(found):
        size = len(found)
        found |= {target for move in steps if move.origin in found for target in move.targets}
    return found
