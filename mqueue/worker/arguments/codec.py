"""A call of a task travels as JSON: `{"task": name, "args": […], "kwargs": {…}}`.

Arguments may be what JSON knows, and datetime, UUID, Decimal, bytes, dataclasses, msgspec structs and pydantic models.
The worker turns each back into the type that its parameter is annotated with. A result is JSON as well, and comes back
by the annotation of the return. Data never chooses what is imported or built: only the annotations do.

`pack` refuses, where a call is enqueued, what the worker would bury or would have as something else (`difference.py`).
The worker itself is less strict: it takes "5" for an int, since not every producer is Python.
"""

import inspect
import math
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import msgspec

from mqueue import message as m
from mqueue.worker.arguments import kinds, models

PLAIN: dict[Any, type] = {t: t for t in (str, int, float, bool, dict, list)}
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NOT_GIVEN = object()  # the default of a parameter that has none and may be left out


class Misfit(Exception):
    """A payload is no call of a task, or its arguments do not fit it. Trying again cannot help."""


class Unreadable(TypeError):
    """Annotations cannot be resolved."""


class BadResult(Exception):
    """A return value cannot be kept: it has no JSON form, is not what the annotation says, or is too large."""


class Name(msgspec.Struct):
    """This reads the task of an envelope, and skips the rest."""

    task: str


class Envelope(msgspec.Struct):
    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


def encode(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, steady: bool = False) -> bytes:
    """Make a call bytes. Raises TypeError for a value that has no JSON form. With `steady` the bytes are the same in
    every process, whatever order a set has there.
    """
    return _as_json(Envelope(name, list(args), dict(kwargs)), _encode_steadily if steady else None)


def _as_json(value: Any, encode: Callable[[Any], bytes] | None = None) -> bytes:
    try:
        encoded = (encode or _encode)(value)
        if b"null" in encoded and value is not None:  # NaN becomes null, too
            _refuse_nan(msgspec.to_builtins(value, str_keys=True, enc_hook=_or_none))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(str(error)) from error
    return encoded


def _or_none(value: Any) -> Any:
    return models.dump(value) if models.is_model(type(value)) else None


_encode = msgspec.json.Encoder(enc_hook=models.dump).encode
_encode_steadily = msgspec.json.Encoder(enc_hook=models.dump_steadily, order="deterministic").encode
_decode = msgspec.json.Decoder(Envelope).decode
_reading = threading.RLock()  # held while annotations are read
_decode_name = msgspec.json.Decoder(Name).decode


def _refuse_nan(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} has no JSON form")
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_nan(part)


def task_name(payload: bytes) -> str | None:
    """Return the name of the task that this is a call of; None where it is no call."""
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
    """A shape knows the parameters of a function: whether a call fits, and what types its arguments have. It reads the
    annotations at the first use.

    `returns` says that what the function returns is kept, so that its type counts as well.
    """

    def __init__(self, function: Callable[..., Any], *, returns: bool = False) -> None:
        self._function = function
        self._returns = returns
        self.signature = inspect.signature(function)
        self._ready = False
        self._defaults: dict[str, Any] | None = None

    def pack(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Make this call of task `name` bytes. Raises TypeError, naming task and argument, for a call that no worker
        could run.
        """
        try:
            self.prepare()
        except TypeError as error:
            raise TypeError(f"task {name}: {error}") from error
        try:
            self.signature.bind(*args, **kwargs)
            payload = encode(name, args, kwargs)
            if not self._fits_plainly(args, kwargs):
                self._check_arrival(payload, args, kwargs)
        except (TypeError, Misfit, RecursionError) as error:
            raise TypeError(f"task {name}: {self._culprit(args, kwargs)}{error}") from error
        return payload

    def identity(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Calls that mean the same have the same identity: by place or by name, with a default given or left out, 1 or
        1.0 for a float. The call must be one that fits.
        """
        if not self._fits_plainly(args, kwargs):
            call = decode(encode(name, args, kwargs, steady=True))
            args, kwargs = self.fit(call.args, call.kwargs)
        bound = self.prepare().signature.bind(*args, **kwargs)
        if self._defaults is None:
            self._defaults = self._as_given()
        return blake2b(_encode_steadily([name, {**self._defaults, **bound.arguments}]), digest_size=16).hexdigest()

    def _as_given(self) -> dict[str, Any]:
        """Return the defaults as they would be if they were given."""
        defaults = {name: each.default for name, each in self.signature.parameters.items() if _is_plain(each.default)}
        for name, default in defaults.items():
            with suppress(Exception):  # a default need not be of the type: None for an int, say
                defaults[name] = _convert(msgspec.json.decode(_encode_steadily(default)), self._targets[name], strict=True)
        return defaults

    def _check_arrival(self, payload: bytes, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Would the worker have what was given? Raises Misfit where not."""
        call = decode(payload)
        self.fit(call.args, call.kwargs, strict=True)
        for index, value in enumerate(args):
            self._compare(self._kinds[index] if index < len(self._kinds) else self._kind_rest, value, call.args[index], index)
        for name, value in kwargs.items():
            self._compare(self._kinds_named.get(name, self._kind_any_named), value, call.kwargs[name], name)

    def _compare(self, kind: kinds.Kind | None, given: Any, came: Any, where: int | str) -> None:
        changed = kind.difference(given, came) if kind is not None else None
        if changed is not None:
            raise Misfit(f"{self._name(where)} does not fit: {changed}")

    def _fits_plainly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Is every argument exactly of the type that its parameter asks for, and does JSON keep that type? (The call
        was bound before, so it has no argument too many.)
        """
        for index, value in enumerate(args):
            target = self._exact[index] if index < len(self._exact) else self._exact_rest
            if target is not None and type(value) is not target:
                return False
        for name, value in kwargs.items():
            target = self._exact_named.get(name, self._exact_any_named)
            if target is not None and type(value) is not target:
                return False
        return True

    def _culprit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Name the argument that has no JSON form, if there is one."""
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for where, value in given:
            try:
                encode("", [value], {})
            except TypeError:
                return f"{self._name(where)}: "
        return ""

    def prepare(self) -> "Shape":
        """Read the annotations, once. Raises TypeError when one cannot be resolved, or is no type that an argument may
        have.
        """
        if not self._ready:
            with _reading:
                if not self._ready:
                    self._read(self._hints())
                    self._ready = True
        return self

    def _read(self, hints: dict[str, Any]) -> None:
        signature, hints = self._unpacked(hints)
        self._targets = {name: _target(hints.get(name, Any)) for name in signature.parameters}  # None takes a value as it comes
        self._positional: list[Any] = []
        self._named: dict[str, Any] = {}
        self._rest: Any = None
        self._any_named: Any = None
        self._kinds: list[kinds.Kind | None] = []  # the kinds of the four targets above, in the same order
        self._kinds_named: dict[str, kinds.Kind | None] = {}
        self._kind_rest: kinds.Kind | None = None
        self._kind_any_named: kinds.Kind | None = None
        self._least = 0
        needs_names = False
        for name, parameter in signature.parameters.items():
            place, target, required = parameter.kind, self._targets[name], parameter.default is parameter.empty
            kind = self._kind(target, f"parameter {name!r}", formless=not required)
            if place is parameter.VAR_POSITIONAL:
                self._rest, self._kind_rest = target, kind
            elif place is parameter.VAR_KEYWORD:
                self._any_named, self._kind_any_named = target, kind
            else:
                if place is parameter.KEYWORD_ONLY:
                    needs_names = needs_names or required
                else:
                    self._positional.append(target)
                    self._kinds.append(kind)
                    self._least += required
                if place is not parameter.POSITIONAL_ONLY:
                    self._named[name], self._kinds_named[name] = target, kind
        self._positional_only_fits = not needs_names
        self._exact = [kinds.exact(target) for target in self._positional]
        self._exact_named = {name: kinds.exact(target) for name, target in self._named.items()}
        self._exact_rest, self._exact_any_named = kinds.exact(self._rest), kinds.exact(self._any_named)
        self._returned: Any = _target(hints.get("return", Any))
        self._exact_returned = kinds.exact(self._returned)
        self._kind_returned = self._kind(self._returned, "what it returns") if self._returns else None
        self.signature = signature

    def _kind(self, target: Any, where: str, *, formless: bool = False) -> kinds.Kind | None:
        return None if target is None else kinds.Kind(target, f"{self._function.__qualname__}: {where}", formless=formless)

    def _unpacked(self, hints: dict[str, Any]) -> tuple[inspect.Signature, dict[str, Any]]:
        """Replace `**kwargs: Unpack[Options]` by the parameters that it stands for."""
        others = [each for each in self.signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        [*_, last] = [None, *self.signature.parameters.values()]
        annotation = hints.get(last.name) if last is not None else None
        if typing.get_origin(annotation) is not typing.Unpack:
            return self.signature, hints
        [options] = typing.get_args(annotation)
        try:
            given = {name: _without_marks(hint) for name, hint in typing.get_type_hints(options, include_extras=True).items()}
            for name in given:
                default = inspect.Parameter.empty if name in options.__required_keys__ else NOT_GIVEN
                others.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))
            return self.signature.replace(parameters=others), {**hints, **given}
        except Exception as error:
            raise Unreadable(f"{self._function.__qualname__}: its {annotation} cannot be read: {error}") from error

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function, include_extras=True)
        except Exception as error:
            raise Unreadable(f"{self._function.__qualname__}: its annotations cannot be read: {error}") from error

    def fit(self, args: list[Any], kwargs: dict[str, Any], *, strict: bool = False) -> tuple[list[Any], dict[str, Any]]:
        """Turn the arguments into their annotated types. With `strict`, "5" is no int. Raises Misfit."""
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
        """Make what the function has returned bytes. Raises BadResult for what `unpack_result` could not give back."""
        try:
            packed = _as_json(value)
            wanted = self.prepare()._exact_returned
            if wanted is not None and type(value) is not wanted:
                kind, back = self._kind_returned, self.unpack_result(packed, strict=True)
                changed = kind.difference(value, back) if kind is not None else None
                if changed is not None:
                    raise TypeError(changed)
        except Exception as error:
            raise BadResult(f"the result of {self._function.__qualname__} cannot be kept: {error}") from error
        if len(packed) > m.RESULT_MAX:
            raise BadResult(f"the result of {self._function.__qualname__} takes {len(packed):,} bytes, {m.RESULT_MAX:,} are allowed")
        return packed

    def unpack_result(self, packed: bytes, *, strict: bool = False) -> Any:
        """Turn a result into the type of the function's return annotation. Raises TypeError for one of another form."""
        target = self.prepare()._returned
        try:
            value = msgspec.json.decode(packed)
            if target is None or type(value) is target:
                return value
            return _convert(value, target, strict)
        except Exception as error:  # a dataclass may raise anything as it is made
            raise TypeError(f"the result is not what {self._function.__qualname__} returns: {error}") from error

    def _convert(self, value: Any, target: Any, where: int | str, strict: bool) -> Any:
        try:
            return _convert(value, target, strict)
        except Exception as error:  # a dataclass may raise anything as it is made
            raise Misfit(f"{self._name(where)} does not fit: {error}") from error

    def _name(self, where: int | str) -> str:
        """Name an argument by its parameter, or by its place among those of `*args`."""
        if isinstance(where, int):
            names = [name for name, each in self.signature.parameters.items() if each.kind in POSITIONAL]
            where = names[where] if where < len(names) else where + 1
        return f"argument {where!r}"


class ItemShape(Shape):
    """This is the shape of a function that takes a list of items, where each message is a call with one item. Raises
    TypeError for any other function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        first, *others = [*self.signature.parameters.values(), None]
        if first is None or first.kind not in POSITIONAL or any(p is not None and p.default is p.empty for p in others):
            raise TypeError(f"{function.__qualname__}: a batch's handler takes one argument, the list of its items")
        self._items = first.name
        self.signature = inspect.Signature([inspect.Parameter("item", inspect.Parameter.POSITIONAL_ONLY)])

    def _hints(self) -> dict[str, Any]:
        """Return the annotation of the one item."""
        given = super()._hints().get(self._items, list)
        kind = typing.get_origin(given) or given
        if kind not in (list, Sequence, Any):
            raise TypeError(f"{self._function.__qualname__}: a batch's handler takes a list of items, not {given}")
        return {"item": next(iter(typing.get_args(given)), Any)}


def _convert(value: Any, target: Any, strict: bool) -> Any:
    """Turn a JSON value into `target`, strictly at first: "1.5" is a Decimal where that or a float is asked for."""
    try:
        return msgspec.convert(value, target, strict=True, str_keys=True, dec_hook=models.build)
    except Exception:
        if strict:
            raise
    return msgspec.convert(value, target, strict=False, str_keys=True, dec_hook=models.build)


def _is_plain(default: Any) -> bool:
    """Could this default be sent as an argument?"""
    try:
        _encode(default)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return default is not inspect.Parameter.empty


def _target(annotation: Any) -> Any:
    """The type to turn a value into; None where every JSON value will do."""
    if annotation in (Any, object, inspect.Parameter.empty) or isinstance(annotation, typing.ParamSpecArgs | typing.ParamSpecKwargs):
        return None
    return PLAIN.get(annotation, annotation)


def _without_marks(hint: Any) -> Any:
    while typing.get_origin(hint) in (typing.Required, typing.NotRequired):
        [hint] = typing.get_args(hint)
    return hint
