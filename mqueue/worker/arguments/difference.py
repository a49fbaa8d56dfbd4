"""Does a value come back from JSON as it was? A type is made into a function that compares what was given with what has
come back, and finds the first place where they differ.

Some differences are meant, and count for none: a value in its JSON form for the type that it is annotated with (a dict
for a dataclass, a text for a UUID), an int for a float, any sequence for a list.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_origin

from msgspec import inspect as read

from mqueue.worker.arguments import models

ARRAYS = (list, tuple, set, frozenset)
BYTES = (bytes, bytearray, memoryview)
Found = tuple[str, str] | None  # the place where two values differ, and how; None where they do not
Compare = Callable[[Any, Any], Found]
Part = Callable[[Any], Compare]  # makes the comparison of a part of a type


def comparison(kind: read.Type) -> Compare:
    """Make the comparison of a type. It takes what was given and what has come back."""
    return _comparison(kind, {})


def _comparison(kind: Any, made: dict[int, Compare]) -> Compare:
    """`made` has the comparisons that there are, and those that are being made: a type may have itself as a part, and
    the comparison of that part is looked up when it is needed.
    """
    key = id(kind)

    def later(given: Any, back: Any) -> Found:
        return made[key](given, back)

    if key in made:
        return later
    made[key] = _leaf
    if (make := _MAKE.get(type(kind))) is not None:
        made[key] = make(kind, lambda part: _comparison(part, made))
    return made[key]


def _leaf(given: Any, back: Any) -> Found:
    """This compares values that have no parts."""
    if type(given) is type(back) and given == back:
        return None
    same = False
    if isinstance(given, datetime) and isinstance(back, datetime):
        same = given == back or (given.tzinfo is not None and back.tzinfo is not None and given.astimezone(UTC) == back.astimezone(UTC))
    elif type(given) is str:  # it may be the JSON form of what has come back
        same = type(back) is not str
    elif type(given) is int or type(given) is float:
        same = given == back or isinstance(back, Decimal)
    elif isinstance(given, BYTES):
        same = isinstance(back, BYTES) and bytes(given) == bytes(back)
    elif isinstance(given, type(back)):
        same = given == back or repr(given) == repr(back)  # a Decimal's NaN equals nothing
    return None if same else _changed(given, back)


def _changed(given: Any, back: Any) -> Found:
    if type(given) is type(back):
        return "", f"this {type(given).__name__} would arrive with another value"
    return "", f"{type(given).__name__} would arrive as {type(back).__name__}"


def _first(found: Iterable[tuple[str, Found]]) -> Found:
    """Return the first difference, its place preceded by the step that leads to it."""
    return next(((step + each[0], each[1]) for step, each in found if each is not None), None)


def _any(kind: Any, part: Part) -> Compare:
    return lambda given, back: None


def _union(kind: read.UnionType, part: Part) -> Compare:
    members = [part(each) for each in kind.types]

    def compare(given: Any, back: Any) -> Found:
        found = [member(given, back) for member in members]
        if None in found:
            return None
        return max(filter(None, found), key=lambda each: len(each[0]))  # the deepest: of the type that it nearly is

    return compare


def _array(kind: Any, part: Part) -> Compare:
    each = part(kind.item_type) if not isinstance(kind, read.TupleType) else None
    items = [part(item) for item in kind.item_types] if isinstance(kind, read.TupleType) else []

    def compare(given: Any, back: Any) -> Found:
        if not isinstance(given, ARRAYS) or not isinstance(back, ARRAYS) or len(given) != len(back):
            return _changed(given, back)
        pairs = enumerate(zip(given, back, strict=True))
        return _first((f"[{n}]", found) for n, (one, other) in pairs if (found := (each or items[n])(one, other)) is not None)

    return compare


def _set(kind: Any, part: Part) -> Compare:
    item = part(kind.item_type)

    def compare(given: Any, back: Any) -> Found:
        if not isinstance(given, ARRAYS) or not isinstance(back, set | frozenset):
            return _changed(given, back)
        if isinstance(given, list | tuple):  # this is its JSON form
            return None
        found = {each: each for each in back}
        return _first(("[…]", item(each, found.get(each))) for each in given)

    return compare


def _dict(kind: read.DictType, part: Part) -> Compare:
    key, value = part(kind.key_type), part(kind.value_type)

    def compare(given: Any, back: Any) -> Found:
        if not isinstance(given, Mapping) or not isinstance(back, dict) or len(given) != len(back):
            return _changed(given, back)
        pairs = list(zip(given, back, strict=True))
        keys = _first((", a key", key(one, other)) for one, other in pairs)
        return keys or _first(("[…]", value(given[one], back[other])) for one, other in pairs)

    return compare


def _object(kind: Any, part: Part) -> Compare:
    """This compares structs, dataclasses, TypedDicts and NamedTuples, field by field."""
    fields, cls = [(each.name, part(each.type)) for each in kind.fields], get_origin(kind.cls) or kind.cls
    keys = {each.encode_name: (each.name, part(each.type)) for each in kind.fields}
    tag = getattr(kind, "tag_field", None)
    typed_dict = isinstance(kind, read.TypedDictType)

    def compare(given: Any, back: Any) -> Found:
        if not isinstance(back, dict if typed_dict else cls):
            return _changed(given, back)
        if isinstance(given, dict):  # this is its JSON form, or a TypedDict
            unknown = [key for key in given if key not in keys and key != tag]
            if unknown:
                return "", f"{cls.__qualname__} has no {unknown[0]!r}"
            pairs = ((keys[key], value) for key, value in given.items() if key in keys)
            return _first((f".{name}", of(value, back[name] if typed_dict else getattr(back, name))) for (name, of), value in pairs)
        if type(given) is not type(back):
            return None if type(given) in (list, tuple) else _changed(given, back)
        for name, of in fields:
            found = of(getattr(given, name, None), getattr(back, name, None))
            if found is not None:
                return f".{name}{found[0]}", found[1]
        return None

    return compare


def _model(kind: read.CustomType, part: Part) -> Compare:
    def compare(given: Any, back: Any) -> Found:
        if not isinstance(back, kind.cls):
            return _changed(given, back)
        if type(given) is not type(back):
            return None if type(given) in models.FORMS else _changed(given, back)
        name = models.difference(given, back)
        return None if name is None else (f".{name}", f"this {type(given).__name__} would arrive with another value")

    return compare


_MAKE: dict[type, Callable[[Any, Part], Compare]] = {
    read.AnyType: _any,
    read.RawType: _any,
    read.UnionType: _union,
    read.ListType: _array,
    read.TupleType: _array,
    read.VarTupleType: _array,
    read.SetType: _set,
    read.FrozenSetType: _set,
    read.DictType: _dict,
    read.StructType: _object,
    read.DataclassType: _object,
    read.TypedDictType: _object,
    read.NamedTupleType: _object,
    read.CustomType: _model,
}
