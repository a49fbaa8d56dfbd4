"""The types that arguments and results may have: can JSON carry one, and does a value of it come back as it was?

What would arrive as something else (a Decimal as a float, a field at its default) is refused where it is given. Some of
it is meant: a value in its JSON form for the type that it is annotated with, an int for a float, any sequence for a
list. Where the type is Any, a value comes as JSON has it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import NoneType
from typing import Any, get_args, get_origin
from uuid import UUID

from msgspec import inspect as read

from mqueue.worker.arguments import models

# Each value of them comes back from JSON as it was, unless it has no JSON form at all. (A datetime may have an odd
# offset.) What is within a bare list or dict has no type to come back in.
EXACT = frozenset({str, int, float, bool, NoneType, bytes, UUID, Decimal, list, dict})
ADVICE = (
    "annotate it with types that JSON tells apart (structs by `tag=True`, pydantic models by a RootModel with a discriminator), or with Any: "
    "it comes as JSON has it then"
)
ARRAYS = (list, tuple, set, frozenset)
BYTES = (bytes, bytearray, memoryview)
Found = tuple[str, str] | None  # where two values differ, and how
Compare = Callable[[Any, Any], Found]


class Never:
    """No value has this type."""


def exact(target: Any) -> Any:
    """The type whose values need no look: `target` itself, `Never`, or None for any."""
    return target if target is None or target in EXACT else Never


class Kind:
    """What `target` is made of. Raises TypeError, naming `where`, for a type that cannot come back from JSON.

    `formless`: it may be a class that has no form there. (A default for it must do.)
    """

    def __init__(self, target: Any, where: str, *, formless: bool = False) -> None:
        try:
            kind = read.type_info(target)
        except Exception as error:  # annotations are evaluated within
            if not (formless and any(map(_is_formless, _leaves(target)))):
                raise TypeError(f"{where}: {error}: {ADVICE}") from error
            kind = read.AnyType()
        parts = list(_parts(kind, set()))
        without = [part.cls for part in parts if isinstance(part, read.CustomType) and not models.is_model(part.cls)]
        if without and not formless:
            raise TypeError(f"{where}: {without[0].__qualname__} is no type that an argument of a task can have: {ADVICE}")
        self._kind = kind
        self._compare: Compare | None = None
        # Decimal(1) == 1.0, and what `==` means for a class is its own affair.
        self._by_equality = all(isinstance(part, _BUILTIN) for part in parts)

    def difference(self, given: Any, back: Any) -> str | None:
        """Between a value and what comes back of it; None: nothing that counts."""
        if self._by_equality and given == back:
            return None
        if self._compare is None:
            self._compare = _comparison(self._kind, {})
        found = self._compare(given, back)
        return None if found is None else found[1] + (f", at `${found[0]}`" if found[0] else "")


def _leaves(target: Any) -> Iterator[Any]:
    """The types that an annotation names."""
    for part in get_args(target) or ():
        yield from _leaves(part)
    yield get_origin(target) or target


def _is_formless(target: Any) -> bool:
    try:
        kind = read.type_info(target)
    except Exception:
        return False
    return isinstance(kind, read.CustomType) and not models.is_model(kind.cls)


def _parts(kind: Any, seen: set[int]) -> Iterator[read.Type]:
    if id(kind) in seen:  # a type that has itself as a part
        return
    seen.add(id(kind))
    if isinstance(kind, read.Type):
        yield kind
    if isinstance(kind, read.Type | read.Field):
        for name in kind.__struct_fields__:
            if name not in ("default", "default_factory", "extra", "extra_json_schema"):
                yield from _parts(getattr(kind, name), seen)
    elif isinstance(kind, tuple):
        for part in kind:
            yield from _parts(part, seen)


def _comparison(kind: Any, made: dict[int, Compare]) -> Compare:
    def later(given: Any, back: Any) -> Found:
        return made[id(kind)](given, back)

    if id(kind) in made:
        return later  # it is being made: a type that has itself as a part
    made[id(kind)] = _leaf
    make = _MAKE.get(type(kind))
    if make is not None:
        made[id(kind)] = make(kind, lambda part: _comparison(part, made))
    return made[id(kind)]


def _leaf(given: Any, back: Any) -> Found:
    if type(given) is type(back) and given == back:
        return None
    same = False
    if isinstance(given, datetime) and isinstance(back, datetime):
        same = given == back or (given.tzinfo is not None and back.tzinfo is not None and given.astimezone(UTC) == back.astimezone(UTC))
    elif type(given) is str:  # perhaps what JSON has of it
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
    return next(((step + each[0], each[1]) for step, each in found if each is not None), None)


Part = Callable[[Any], Compare]


def _any(kind: Any, part: Part) -> Compare:
    return lambda given, back: None


def _union(kind: read.UnionType, part: Part) -> Compare:
    members = [part(each) for each in kind.types]

    def compare(given: Any, back: Any) -> Found:
        found = [member(given, back) for member in members]
        return None if None in found else max(filter(None, found), key=lambda each: len(each[0]))  # of the one that it nearly is

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
        if isinstance(given, list | tuple):  # its form in JSON
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
    """Of a struct, a dataclass, a TypedDict, a NamedTuple."""
    fields, cls = [(each.name, part(each.type)) for each in kind.fields], get_origin(kind.cls) or kind.cls
    keys = {each.encode_name: (each.name, part(each.type)) for each in kind.fields}
    tag = getattr(kind, "tag_field", None)
    typed_dict = isinstance(kind, read.TypedDictType)

    def compare(given: Any, back: Any) -> Found:
        if not isinstance(back, dict if typed_dict else cls):
            return _changed(given, back)
        if isinstance(given, dict):  # its form in JSON
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
_BUILTIN = (
    read.NoneType | read.BoolType | read.IntType | read.FloatType | read.StrType | read.BytesType | read.UUIDType | read.DateType
    | read.DateTimeType | read.TimeDeltaType | read.ListType | read.TupleType | read.VarTupleType | read.DictType | read.UnionType
)  # fmt: skip
