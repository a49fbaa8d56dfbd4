"""The declarations of options become the help of functions here, and the tables of docs/worker.md.

`python -m mqueue.worker.tasks.reference docs/worker.md` writes the tables of that page anew.
"""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mqueue.worker.tasks.options import CALL, TASK, Declared

F = TypeVar("F", bound=Callable[..., object])
TABLES = {"@app.task(…)": TASK, "options(…)": CALL}  # by their first column's head


def documented(declared: Declared) -> Callable[[F], F]:
    """Document a function that takes these options: its docstring gets a line for each in place of `{options}`, and its
    signature gets their names and defaults, for `help()` and for notebooks.
    """

    def document(function: F) -> F:
        lines = [f"`{name}`: {option.help}" for name, option in declared.options.items()]
        function.__doc__ = inspect.cleandoc(function.__doc__ or "").replace("{options}", "\n".join(lines))
        keyword = inspect.Parameter.KEYWORD_ONLY
        named = [inspect.Parameter(name, keyword, default=option.default) for name, option in declared.options.items()]
        signature = inspect.signature(function)
        others = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=[*others, *named])  # type: ignore[attr-defined]
        return function

    return document


def table(head: str) -> str:
    """This is a table in Markdown: a row for each option."""
    rows = [f"| `{head}` | |", "|---|---|"]
    for name, option in TABLES[head].options.items():
        more = f" ([more](#{option.see}))" if option.see else ""
        rows.append(f"| `{name}` | {option.help}{_default(option.default)}{more} |")
    return "\n".join(rows) + "\n"


def _default(value: object) -> str:
    """This is the default as a reader sees it. None, False and nothing go without saying."""
    if value is None or value is False or value == ():
        return ""
    return f"; `{value:,g}`" if isinstance(value, int | float) else f"; `{value}`"


def written(page: str) -> str:
    """Write the tables of a page anew."""
    for head in TABLES:
        page = re.sub(rf"(?m)^\| `{re.escape(head)}` \|.*\n(\|.*\n)*", lambda _, head=head: table(head), page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(written(path.read_text()))
