"""These are the tasks of this process, by their paths: those of all backends, since `using(backend=…)` sends any of
them through any backend.

A message never makes anything be imported.
"""

import sys
from types import ModuleType
from typing import Any

from django.tasks.base import Task

_known: dict[str, Task] = {}


def know(task: Task) -> None:
    _known[task.module_path] = task


def find(path: str) -> Task | None:
    return _known.get(path) or _elsewhere(path)


def _elsewhere(path: str) -> Task | None:
    """Finds a task that is declared for a backend that is none of ours, in a module that is imported."""
    module, _, name = path.rpartition(".")
    there = sys.modules.get(module)
    if type(there) is not ModuleType:  # a lazy module might be imported by the look itself
        return None
    found: Any = vars(there).get(name)
    return found if issubclass(type(found), Task) and found.module_path == path else None
