"""Who imports whom: read from the source, with what stands under TYPE_CHECKING or in a function."""

import ast
import sys
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules() -> dict[str, Path]:
    """All of mqueue's, by dotted name; a package goes by its folder's."""
    found = {}
    for path in sorted((ROOT / "mqueue").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Dotted names; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def graph() -> dict[str, set[str]]:
    """Module → modules of mqueue that it imports. A package counts only where a name is taken from its `__init__`."""
    known = modules()
    arrows: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                arrows[name] |= {alias.name for alias in node.names} & known.keys()
            elif isinstance(node, ast.ImportFrom) and node.module in known:
                for alias in node.names:
                    of = f"{node.module}.{alias.name}"
                    arrows[name].add(of if of in known else node.module)
    return arrows


def third_party(path: Path) -> set[str]:
    """The top level modules of others that it imports."""
    tops = {name.partition(".")[0] for name in imported(path)}
    return tops - sys.stdlib_module_names - {"mqueue"}


def circles(arrows: Mapping[str, Set[str]]) -> list[list[str]]:
    """Groups that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group, stack[at:] = stack[at:], []
            if len(group) > 1 or node in arrows.get(node, ()):
                found.append(sorted(group))

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def reachable(arrows: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """The transitive closure."""
    closed: dict[str, set[str]] = {}
    for start in arrows:
        seen: set[str] = set()
        todo = [*arrows[start]]
        while todo:
            if (node := todo.pop()) not in seen:
                seen.add(node)
                todo += arrows.get(node, ())
        closed[start] = seen
    return closed


def reduced(arrows: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """The fewest arrows with the same closure; of a graph without circles."""
    closed = reachable(arrows)
    return {a: {b for b in arrows[a] if not any(b in closed[c] for c in arrows[a] if c != b)} for a in arrows}


def room(module: str, inside: str) -> str | None:
    """The part of `inside` (mqueue.broker, say) that a module is in; None: it is elsewhere."""
    return module.removeprefix(f"{inside}.").partition(".")[0] if module.startswith(f"{inside}.") else None


def rooms(inside: str) -> dict[str, set[str]]:
    """The parts of a package, and which of its others each imports."""
    arrows: dict[str, set[str]] = {}
    for module, others in graph().items():
        if (a := room(module, inside)) is not None:
            arrows.setdefault(a, set()).update(b for other in others if (b := room(other, inside)) is not None and b != a)
    return arrows


def picture(inside: str, drawn: Set[str]) -> set[tuple[str, str]]:
    """The fewest arrows that say which of these parts of a package needs which; other parts are passed through."""
    closed = reachable(rooms(inside))
    fewest = reduced({a: {b for b in closed[a] if b in drawn} for a in drawn})
    return {(a, b) for a, others in fewest.items() for b in others}
