"""Which types may arguments and results have? JSON must be able to carry one, and to tell it apart when it comes back.

What would arrive as something else (a Decimal as a float, a field at its default) is refused where it is given:
`difference.py` finds it. Where the type is Any, a value comes as JSON has it.
"""

from collections.abc import Iterator
from decimal import Decimal
from types import NoneType
from typing import Any, get_args, get_origin
from uuid import UUID

from msgspec import inspect as read

from mqueue.worker.arguments import models
from mqueue.worker.arguments.difference import Compare, comparison

# Each value of these types comes back from JSON as it was, unless it has no JSON form at all. (A datetime is not among
# them: it may have an odd offset.) What is within a bare list or dict has no type to come back in.
EXACT = frozenset({str, int, float, bool, NoneType, bytes, UUID, Decimal, list, dict})
ADVICE = (
    "annotate it with types that JSON tells apart (structs by `tag=True`, pydantic models by a RootModel with a discriminator), or with Any: "
    "it comes as JSON has it then"
)
_BUILTIN = (
    read.NoneType | read.BoolType | read.IntType | read.FloatType | read.StrType | read.BytesType | read.UUIDType | read.DateType
    | read.DateTimeType | read.TimeDeltaType | read.ListType | read.TupleType | read.VarTupleType | read.DictType | read.UnionType
)  # fmt: skip


class Never:
    """No value has this type."""


def exact(target: Any) -> Any:
    """Values of exactly this type need no comparison: that is `target`, or `Never`; None where no value needs one."""
    return target if target is None or target in EXACT else Never


class Kind:
    """A kind knows what the type `target` is made of. Raises TypeError, naming `where`, for a type that cannot come
    back from JSON.

    `formless` allows a class that has no JSON form: the parameter has a default, and is never given.
    """

    def __init__(self, target: Any, where: str, *, formless: bool = False) -> None:
        try:
            kind = read.type_info(target)
        except Exception as error:  # msgspec evaluates annotations, which may raise anything
            if not (formless and any(map(_is_formless, _leaves(target)))):
                raise TypeError(f"{where}: {error}: {ADVICE}") from error
            kind = read.AnyType()
        parts = list(_parts(kind, set()))
        without = [part.cls for part in parts if isinstance(part, read.CustomType) and not models.is_model(part.cls)]
        if without and not formless:
            raise TypeError(f"{where}: {without[0].__qualname__} is no type that an argument of a task can have: {ADVICE}")
        self._kind = kind
        self._compare: Compare | None = None
        # `==` is quick, but does not tell enough of other types: Decimal(1) == 1.0, and a class has an `==` of its own.
        self._by_equality = all(isinstance(part, _BUILTIN) for part in parts)

    def difference(self, given: Any, back: Any) -> str | None:
        """Tell how a value differs from what has come back of it; None where no difference counts."""
        if self._by_equality and given == back:
            return None
        if self._compare is None:
            self._compare = comparison(self._kind)
        found = self._compare(given, back)
        return None if found is None else found[1] + (f", at `${found[0]}`" if found[0] else "")


def _leaves(target: Any) -> Iterator[Any]:
    """These are the types that an annotation names."""
    for part in get_args(target) or ():
        yield from _leaves(part)
    yield get_origin(target) or target


def _is_formless(target: Any) -> bool:
    """Is it a class that has no JSON form?"""
    try:
        kind = read.type_info(target)
    except Exception:
        return False
    return isinstance(kind, read.CustomType) and not models.is_model(kind.cls)


def _parts(kind: Any, seen: set[int]) -> Iterator[read.Type]:
    """These are the type and all types within it."""
    if id(kind) in seen:  # a type may have itself as a part
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
