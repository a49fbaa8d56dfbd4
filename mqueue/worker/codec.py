"""A call of a task as bytes: JSON `{"task": name, "args": […], "kwargs": {…}}`.

Arguments may be what JSON knows, and datetime, UUID, Decimal, bytes, dataclasses, msgspec structs and pydantic models; the worker
turns each back into the type its parameter is annotated with; a result is JSON as well, and comes back by the annotation of the
return. Data never chooses what is imported or built: only the annotations
do. What the worker would bury is refused where it is enqueued; the worker itself takes "5" for an int, from producers that are not
Python.
"""

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from mqueue import message as m

PLAIN: dict[Any, type] = {t: t for t in (str, int, float, bool, dict, list)}
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
PYDANTIC = "__pydantic_serializer__"


class Misfit(Exception):
    """A payload that is no call of a task, or arguments that do not fit it. Trying again cannot help."""


class BadResult(Exception):
    """A return value that cannot be kept: it has no JSON form, is not what the annotation says, or is too large."""


class Name(msgspec.Struct):
    """Of an envelope its task alone."""

    task: str


class Envelope(msgspec.Struct):
    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


def encode(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, steady: bool = False) -> bytes:
    """Raises TypeError for a value that has no JSON form. `steady`: the same bytes in every process, whatever order a set has there."""
    return _as_json(Envelope(name, list(args), dict(kwargs)), _encode_steadily if steady else None)


def _as_json(value: Any, encode: Callable[[Any], bytes] | None = None) -> bytes:
    try:
        encoded = (encode or _encode)(value)
        if b"null" in encoded and value is not None:  # what NaN becomes, too
            _refuse_nan(msgspec.to_builtins(value, str_keys=True, enc_hook=_or_none))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(str(error)) from error
    return encoded


def _plain(value: Any) -> Any:
    """A pydantic model as JSON types. pydantic is known by its marks, not imported: it need not be there."""
    if hasattr(type(value), PYDANTIC):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _or_none(value: Any) -> Any:
    return _plain(value) if hasattr(type(value), PYDANTIC) else None


def _build(target: type, value: Any) -> Any:
    """`value`, JSON types, as a pydantic model."""
    if hasattr(target, PYDANTIC):
        return target.model_validate_json(msgspec.json.encode(value))  # type: ignore[attr-defined]
    raise TypeError(f"{target.__qualname__} is no type that an argument of a task can have")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
_encode_steadily = msgspec.json.Encoder(enc_hook=_plain, order="deterministic").encode
_decode = msgspec.json.Decoder(Envelope).decode
_decode_name = msgspec.json.Decoder(Name).decode


def _refuse_nan(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} has no JSON form")
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_nan(part)


def task_name(payload: bytes) -> str | None:
    """Of the task that it is a call of, if it is one."""
    try:
        return _decode_name(payload).task
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def decode(payload: bytes) -> Envelope:
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Misfit(f"not a call of a task: {error}") from error


class Shape:
    """The parameters of one function: does a call fit, what types do its arguments have. Annotations are read at first use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.signature = inspect.signature(function)
        self._ready = False

    def pack(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """This call of task `name` as bytes. Raises TypeError, naming task and argument, for one that no worker could run."""
        try:
            self.prepare().signature.bind(*args, **kwargs)
            payload = encode(name, args, kwargs)
            if not self._fits_plainly(args, kwargs):
                call = decode(payload)
                self.fit(call.args, call.kwargs, strict=True)
        except (TypeError, Misfit) as error:
            raise TypeError(f"task {name}: {self._culprit(args, kwargs)}{error}") from error
        return payload

    def identity(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The same for calls that mean the same: given by place or by name, with a default or without. Of one that fits."""
        bound = self.prepare().signature.bind(*args, **kwargs)
        given = {**{n: p.default for n, p in self.signature.parameters.items() if _is_plain(p.default)}, **bound.arguments}
        return blake2b(_encode_steadily([name, given]), digest_size=16).hexdigest()

    def _fits_plainly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Every argument already is what its parameter asks for, and comes back from JSON as it was. (Its length fits: it was bound.)"""
        for index, value in enumerate(args):
            target = self._positional[index] if index < len(self._positional) else self._rest
            if target is not None and type(value) is not target:
                return False
        for name, value in kwargs.items():
            target = self._named.get(name, self._any_named)
            if target is not None and type(value) is not target:
                return False
        return True

    def _culprit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The argument that has no JSON form, if it is that."""
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for where, value in given:
            try:
                encode("", [value], {})
            except TypeError:
                return f"{self._name(where)}: "
        return ""

    def prepare(self) -> "Shape":
        """Read the annotations. Raises TypeError when one cannot be resolved."""
        if self._ready:
            return self
        hints = self._hints()
        self._positional: list[type | None] = []  # target types; None: as it comes
        self._named: dict[str, Any] = {}
        self._rest: Any = None
        self._least = 0
        self._any_named: Any = None
        self._returned: Any = hints.get("return", Any)
        needs_names = False
        for name, parameter in self.signature.parameters.items():
            kind, target = parameter.kind, _target(hints.get(name, Any))
            if kind is parameter.VAR_POSITIONAL:
                self._rest = target
            elif kind is parameter.VAR_KEYWORD:
                self._any_named = target
            else:
                required = parameter.default is parameter.empty
                if kind is parameter.KEYWORD_ONLY:
                    needs_names = needs_names or required
                else:
                    self._positional.append(target)
                    self._least += required
                if kind is not parameter.POSITIONAL_ONLY:
                    self._named[name] = target
        self._positional_only_fits = not needs_names
        self._ready = True
        return self

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function, include_extras=True)
        except Exception as error:
            raise TypeError(f"{self._function.__qualname__}: its annotations cannot be read: {error}") from error

    def fit(self, args: list[Any], kwargs: dict[str, Any], *, strict: bool = False) -> tuple[list[Any], dict[str, Any]]:
        """The arguments in their annotated types. `strict`: "5" is no int. Raises Misfit."""
        self.prepare()
        positional = self._positional
        if kwargs or not (self._positional_only_fits and self._least <= len(args) <= len(positional)):
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise Misfit(f"arguments do not fit: {error}") from error
        for index, value in enumerate(args):
            target = positional[index] if index < len(positional) else self._rest
            if target is not None and type(value) is not target:
                args[index] = self._convert(value, target, index, strict)
        for name, value in kwargs.items():
            target = self._named.get(name, self._any_named)
            if target is not None and type(value) is not target:
                kwargs[name] = self._convert(value, target, name, strict)
        return args, kwargs

    def pack_result(self, value: Any) -> bytes:
        """What the function has returned as bytes. Raises BadResult for what `unpack_result` could not give back."""
        try:
            packed = _as_json(value)
            if type(value) is not _target(self.prepare()._returned):
                self.unpack_result(packed, strict=True)
        except Exception as error:
            raise BadResult(f"the result of {self._function.__qualname__} cannot be kept: {error}") from error
        if len(packed) > m.RESULT_MAX:
            raise BadResult(f"the result of {self._function.__qualname__} takes {len(packed):,} bytes, {m.RESULT_MAX:,} are allowed")
        return packed

    def unpack_result(self, packed: bytes, *, strict: bool = False) -> Any:
        """In the type that the function's return is annotated with. Raises TypeError for one of another form."""
        target = _target(self.prepare()._returned)
        try:
            value = msgspec.json.decode(packed)
            if target is None or type(value) is target:
                return value
            return msgspec.convert(value, target, strict=strict, str_keys=True, dec_hook=_build)
        except Exception as error:  # a dataclass may raise anything as it is made
            raise TypeError(f"the result is not what {self._function.__qualname__} returns: {error}") from error

    def _convert(self, value: Any, target: Any, where: int | str, strict: bool) -> Any:
        try:
            return msgspec.convert(value, target, strict=strict, str_keys=True, dec_hook=_build)
        except Exception as error:  # a dataclass may raise anything as it is made
            raise Misfit(f"{self._name(where)} does not fit: {error}") from error

    def _name(self, where: int | str) -> str:
        """Of an argument: by its parameter, or its place among those of `*args`."""
        if isinstance(where, int):
            names = [name for name, each in self.signature.parameters.items() if each.kind in POSITIONAL]
            where = names[where] if where < len(names) else where + 1
        return f"argument {where!r}"


class ItemShape(Shape):
    """Of a function that takes a list of items, where each message is a call with one item. Raises TypeError for any other function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        first, *others = [*self.signature.parameters.values(), None]
        if first is None or first.kind not in POSITIONAL or any(p is not None and p.default is p.empty for p in others):
            raise TypeError(f"{function.__qualname__}: a batch's handler takes one argument, the list of its items")
        self._items = first.name
        self.signature = inspect.Signature([inspect.Parameter("item", inspect.Parameter.POSITIONAL_ONLY)])

    def _hints(self) -> dict[str, Any]:
        """Of the one item."""
        given = super()._hints().get(self._items, list)
        kind = typing.get_origin(given) or given
        if kind not in (list, Sequence, Any):
            raise TypeError(f"{self._function.__qualname__}: a batch's handler takes a list of items, not {given}")
        return {"item": next(iter(typing.get_args(given)), Any)}


def _is_plain(default: Any) -> bool:
    """Could it be an argument?"""
    try:
        _encode(default)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return default is not inspect.Parameter.empty


def _target(annotation: Any) -> Any:
    """None where every JSON value will do."""
    return None if annotation in (Any, object, inspect.Parameter.empty) else PLAIN.get(annotation, annotation)
