"""A task has a name, which travels with its messages. Here one is made where the decorator gives none."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def default_name(function: Callable[..., Any]) -> str:
    """This is `module.qualname`. A program's main module goes by the name that others import it by."""
    return f"{module_name(function)}.{function.__qualname__}"


def module_name(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    return module
