"""May a task take a name that is taken? It may if it is the same task, defined again: its module was reloaded, its cell
in a notebook run again. Two tasks that stand side by side may not share a name, since only one of them would ever run.

A function can be defined again in two ways, and its code object tells which one it was:

    another code    its source was compiled anew, by a reload or in a notebook. Source and options may have changed, so
                    the function is known by its place: module, name and file. Two functions of one name that one module
                    or one cell defines are two.
    the same code   a factory was called again, or a wrapper has put its own code around another function. It is the
                    same task if its options are, and the values that its code is bound to.
"""

import inspect
import sys
from collections.abc import Callable
from types import CellType, CodeType, FrameType
from typing import Any

from mqueue.worker.tasks.options import PERIODIC
from mqueue.worker.tasks.task import Task

EMPTY = CellType()  # the cell of a name that is bound later
VALUES = (str, bytes, int, float, bool, type(None))


def replaces(new: Task[..., Any], old: Task[..., Any]) -> bool:
    """May `new` have the name that `old` has?"""
    if new is old:
        return True
    return _same_function(new.function, old.function) and not (_same_code(new.function, old.function) and _options(new) != _options(old))


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """The code of a function, without its decorators; None where it is not written in Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _same_code(new: Callable[..., Any], old: Callable[..., Any]) -> bool:
    return (code := code_of(new)) is not None and code is code_of(old)


def _same_function(new: Callable[..., Any], old: Callable[..., Any]) -> bool:
    """Are they the same function, as it was and as it is now?"""
    code, code_before = code_of(new), code_of(old)
    if code is None or code_before is None:
        return new is old
    if code is code_before:
        return all(map(_alike, _bound(new), _bound(old)))
    return _same_place(new, old, code, code_before) and not _side_by_side(code, code_before)


def _bound(function: Any) -> list[Any]:
    """These are the values that its code is bound to: what it closes over, its defaults."""
    function = inspect.unwrap(function)
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != EMPTY]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _alike(new: Any, old: Any) -> bool:
    if isinstance(new, VALUES) and isinstance(old, VALUES):
        return new == old
    if inspect.isfunction(new) and inspect.isfunction(old):
        return _same_function(new, old)
    return True  # it may be an application or a connection that is made anew in each test


def _same_place(new: Callable[..., Any], old: Callable[..., Any], code: CodeType, code_before: CodeType) -> bool:
    if (new.__module__, new.__qualname__) != (old.__module__, old.__qualname__):
        return False
    return code.co_filename == code_before.co_filename or _at_a_prompt(new.__module__, code)


def _at_a_prompt(module: str, code: CodeType) -> bool:
    """Was it typed at a prompt, or is it a notebook's cell? These have a file name of their own each time."""
    return module == "__main__" and (not hasattr(sys.modules["__main__"], "__file__") or code.co_filename.startswith("<"))


def _side_by_side(code: CodeType, code_before: CodeType) -> bool:
    """Does one run define both? The code of a module, or of a function, holds the code of what it defines; that code is
    running now, further up. What runs again after a reload is another code, and holds another.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        parts = frame.f_code.co_consts
        if any(part is code for part in parts):
            return any(part is code_before for part in parts)
        frame = frame.f_back
    return code.co_firstlineno != code_before.co_firstlineno  # the definition is over: only the line tells


def _options(task: Task[..., Any]) -> tuple[Any, ...]:
    """These options are compared. The schedule stands for the options that it is made of."""
    return {name: value for name, value in task.told.items() if name not in PERIODIC}, task.periodic
