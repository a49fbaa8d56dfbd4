"""pydantic models become JSON types here, and come back. pydantic is not imported, since it need not be there: a model
is known by its marks.

Fields travel by their names, so that a model may have what aliases it likes. Producers that are not Python may send the
aliases.
"""

import inspect
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any

import msgspec

MARK = "__pydantic_serializer__"
FORMS = (str, int, float, bool, list, dict)


def is_model(kind: type) -> bool:
    return hasattr(kind, MARK)


def dump(value: Any) -> Any:
    """Make a model JSON types. Raises TypeError for what is no model."""
    if is_model(type(value)):
        return value.model_dump(mode="json", round_trip=True, by_alias=False)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def dump_steadily(value: Any) -> Any:
    """Make a model JSON types that are the same in every process, whatever order a set has there."""
    return _sorted(value, dump(value))


def build(target: Any, value: Any) -> Any:
    """Make a model of `value`, which is JSON types."""
    if is_model(target):
        return target.model_validate_json(msgspec.json.encode(value), **_how(target))
    raise TypeError(f"{target.__qualname__} is no type that an argument of a task can have")


@cache
def _how(target: Any) -> dict[str, bool]:
    """These options let a field be found by its name and by its alias. pydantic before 2.11 has no such options: it
    finds a field that has an alias only by that, unless the model says `populate_by_name`.
    """
    return {"by_alias": True, "by_name": True} if "by_name" in inspect.signature(target.model_validate_json).parameters else {}


def difference(given: Any, back: Any) -> str | None:
    """Find the first field in which two models of one class differ. What is private to them, or computed, does not
    count.
    """
    by_value = given.model_config.get("use_enum_values")  # pydantic does not do it to a default
    for name in type(given).model_fields:
        value = getattr(given, name)
        if not _alike(value.value if by_value and isinstance(value, Enum) else value, getattr(back, name)):
            return str(name)
    more, came = given.__pydantic_extra__ or {}, back.__pydantic_extra__ or {}
    return next((name for name in {**more, **came} if name not in more or name not in came or not _alike(more[name], came[name])), None)


def _alike(given: Any, back: Any) -> bool:
    if isinstance(given, list | tuple) and isinstance(back, list | tuple):
        return len(given) == len(back) and all(map(_alike, given, back))
    if type(given) is not type(back):
        return _is_form(given, back)
    if isinstance(given, dict):
        return given.keys() == back.keys() and all(_alike(value, back[key]) for key, value in given.items())
    if is_model(type(given)) and hasattr(given, "model_fields_set"):
        return difference(given, back) is None
    try:
        return bool(given == back) or repr(given) == repr(back) == "nan"
    except Exception:  # a class may raise anything in `==`
        return False


def _is_form(given: Any, back: Any) -> bool:
    """Is `given` a default that pydantic has not looked at, like 0 for a float, or "0.19" for a Decimal? A subclass of
    str counts too.
    """
    if type(given) in (int, float, bool):
        return not isinstance(back, FORMS) or bool(given == back)
    if type(given) in FORMS:
        return not isinstance(back, FORMS)
    return isinstance(given, type(back)) and bool(given == back)


def _sorted(value: Any, dumped: Any) -> Any:
    """Put what was a set into an order of its own."""
    if getattr(type(value), "__pydantic_root_model__", False):
        value = value.root
    match value, dumped:
        case (set() | frozenset(), list()):
            return sorted(dumped, key=msgspec.json.Encoder(order="deterministic").encode)
        case (list() | tuple(), list()) if len(value) == len(dumped):
            return [_sorted(*each) for each in zip(value, dumped, strict=True)]
        case (Mapping(), dict()) if len(value) == len(dumped):
            return {key: _sorted(part, dumped[key]) for part, key in zip(value.values(), dumped, strict=True)}
        case (_, dict()):
            return {key: _sorted(getattr(value, key, None), part) for key, part in dumped.items()}
    return dumped
