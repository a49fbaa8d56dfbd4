"""May a task take the name of another? If it is that one, defined again: its module was reloaded, its cell in a
notebook run again. Two that stand side by side may not, since only one of them would ever run.
"""

import inspect
import sys
from collections.abc import Callable
from types import CellType, CodeType, FrameType
from typing import Any

from mqueue.worker.tasks.options import PERIODIC
from mqueue.worker.tasks.task import Task

EMPTY = CellType()  # of a name that is bound later
VALUES = (str, bytes, int, float, bool, type(None))


def replaces(new: Task[..., Any], old: Task[..., Any]) -> bool:
    one, other = code_of(new.function), code_of(old.function)
    if one is not None and one is other and _options(new) != _options(old):  # two from one factory
        return False
    return new is old or _is(new.function, old.function)


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """None: it is not written in Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _is(new: Any, old: Any) -> bool:
    """Are they the same function, as it was and as it is now?"""
    one, other = code_of(new), code_of(old)
    if one is None or other is None:
        return new is old
    if one is other:  # nothing was reloaded. A wrapper has the same code around each function, a factory's for each argument
        return all(map(_alike, _bound(new), _bound(old)))
    if (new.__module__, new.__qualname__) != (old.__module__, old.__qualname__):
        return False
    return (one.co_filename == other.co_filename or _at_a_prompt(new.__module__, one)) and not _side_by_side(one, other)


def _alike(new: Any, old: Any) -> bool:
    if isinstance(new, VALUES) and isinstance(old, VALUES):
        return new == old
    if inspect.isfunction(new) and inspect.isfunction(old):
        return _is(new, old)
    return True  # an application, a connection: made anew in each test, say


def _bound(function: Any) -> list[Any]:
    """What its code does not say: what it closes over, its defaults."""
    function = inspect.unwrap(function)
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != EMPTY]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _at_a_prompt(module: str, code: CodeType) -> bool:
    """What is typed there, or is a notebook's cell, has a file name of its own each time."""
    return module == "__main__" and (not hasattr(sys.modules["__main__"], "__file__") or code.co_filename.startswith("<"))


def _side_by_side(one: CodeType, other: CodeType) -> bool:
    """Are they defined by one run of one code? What runs again after a reload is another code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        parts = frame.f_code.co_consts
        if any(part is one for part in parts):
            return any(part is other for part in parts)
        frame = frame.f_back
    return one.co_firstlineno != other.co_firstlineno  # defined before: by the line


def _options(task: Task[..., Any]) -> tuple[Any, ...]:
    """What makes it another task than the same code with other options. A schedule stands for what it is made of."""
    return {name: value for name, value in task.told.items() if name not in PERIODIC}, task.periodic
