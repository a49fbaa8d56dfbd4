"""A call of a task as bytes: JSON `{"task": name, "args": […], "kwargs": {…}}`.

Arguments may be what JSON knows, and datetime, UUID, Decimal, bytes, dataclasses and msgspec structs; the worker turns each
back into the type its parameter is annotated with. Data never chooses what is imported or built: only the annotations do.
"""

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

PLAIN: dict[Any, type] = {t: t for t in (str, int, float, bool, dict, list)}


class Misfit(Exception):
    """A payload that is no call of a task, or arguments that do not fit it. Trying again cannot help."""


class Envelope(msgspec.Struct):
    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Envelope).decode


def encode(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Raises TypeError for a value that has no JSON form."""
    call = Envelope(name, list(args), dict(kwargs))
    try:
        payload = _encode(call)
        if b"null" in payload:  # what NaN becomes, too
            _refuse_nan(msgspec.to_builtins(call, str_keys=True, enc_hook=lambda value: None))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"task {name}: an argument cannot be encoded: {error}") from error
    return payload


def _refuse_nan(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} has no JSON form")
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_nan(part)


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

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raises TypeError, as the call itself would."""
        self.signature.bind(*args, **kwargs)

    def prepare(self) -> "Shape":
        """Read the annotations. Raises TypeError when one cannot be resolved."""
        if self._ready:
            return self
        try:
            hints = typing.get_type_hints(self._function, include_extras=True)
        except Exception as error:
            raise TypeError(f"{self._function.__qualname__}: its annotations cannot be read: {error}") from error
        self._positional: list[type | None] = []  # target types; None: as it comes
        self._named: dict[str, Any] = {}
        self._rest: Any = None
        self._least = 0
        self._any_named: Any = None
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

    def fit(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments in their annotated types. Raises Misfit."""
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
                args[index] = _convert(value, target, index)
        for name, value in kwargs.items():
            target = self._named.get(name, self._any_named)
            if target is not None and type(value) is not target:
                kwargs[name] = _convert(value, target, name)
        return args, kwargs


def _target(annotation: Any) -> Any:
    """None where every JSON value will do."""
    return None if annotation in (Any, object, inspect.Parameter.empty) else PLAIN.get(annotation, annotation)


def _convert(value: Any, target: Any, where: int | str) -> Any:
    try:
        return msgspec.convert(value, target, strict=False, str_keys=True)
    except Exception as error:  # a dataclass may raise anything as it is made
        name = f"argument {where + 1}" if isinstance(where, int) else f"argument {where!r}"
        raise Misfit(f"{name} does not fit: {error}") from error
