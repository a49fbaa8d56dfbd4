"""Bodies and query strings become the structs of `mqueue.wire` here, or plain words about what is wrong with them. This
is pure.

Every failure is an `Invalid` that names the item (its index in the array) and the field, as far as there are such.
"""

import re
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct

from mqueue import message as m
from mqueue import wire
from mqueue.errors import Invalid, MQueueError

T = TypeVar("T")
Q = TypeVar("Q", bound=Struct)

NAME_RULE = "1 to 128 of letters, digits, _ . -"
TEXT_RULE = "U+0000 and lone surrogates are not allowed"
QUERY_MAX = 16 * 1024  # bytes
PARAMETERS_MAX = m.TOPICS_MAX + 8


class FetchQuery(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`GET /dequeue`."""

    topic: Annotated[list[wire.Name], Meta(min_length=1, max_length=m.TOPICS_MAX)]
    namespace: wire.Name = m.DEFAULT_NAMESPACE
    limit: Annotated[int, Meta(ge=1, le=m.BATCH_MAX)] = 10
    wait: Annotated[float, Meta(ge=0, le=m.WAIT_MAX_S)] = 0.0
    lease: wire.Lease | None = None


class DeadQuery(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`GET /dlq`."""

    topic: wire.Name
    namespace: wire.Name = m.DEFAULT_NAMESPACE
    limit: Annotated[int, Meta(ge=1, le=m.BATCH_MAX)] = 10
    after: wire.Id = 0


class TopicsQuery(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`GET /topics`, `GET /workers`."""

    namespace: wire.Name | None = None


class ResultQuery(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`GET /messages/{id}/result`."""

    topic: wire.Name | None = None
    namespace: wire.Name = m.DEFAULT_NAMESPACE
    wait: Annotated[float, Meta(ge=0, le=m.WAIT_MAX_S)] = 0.0


class SchedulesQuery(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`GET /schedules`."""

    namespace: wire.Name = m.DEFAULT_NAMESPACE
    limit: Annotated[int, Meta(ge=1, le=m.BATCH_MAX)] = 100
    after: Annotated[str, Meta(max_length=m.NAME_MAX)] = ""


class ScheduleQuery(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The query of what is done with one schedule."""

    namespace: wire.Name = m.DEFAULT_NAMESPACE


class NoQuery(Struct, forbid_unknown_fields=True, frozen=True):
    """The query of the endpoints that take none."""


class Body(Generic[T]):
    """Decoders of one type, made once."""

    def __init__(self, type: Any) -> None:
        self._json = msgspec.json.Decoder(type)
        self._msgpack = msgspec.msgpack.Decoder(type)

    def decode(self, body: bytes, msgpack: bool) -> T:
        try:
            if msgpack:
                return self._msgpack.decode(body)  # type: ignore[no-any-return]
            return self._json.decode(body)  # type: ignore[no-any-return]
        except (ValueError, RecursionError) as error:
            return self._second_look(body, msgpack, error)

    def _second_look(self, body: bytes, msgpack: bool, error: Exception) -> T:
        """Reads JSON with `//` comments, which often has been copied out of a document; that costs
        the others nothing.
        """
        if not msgpack and b"//" in body and not isinstance(error, msgspec.ValidationError):
            try:
                return self._json.decode(_without_comments(body))  # type: ignore[no-any-return]
            except (ValueError, RecursionError) as second:
                raise explain(second) from None
        raise explain(error) from None


ENQUEUE: Body[list[wire.EnqueueItem]] = Body(Annotated[list[wire.EnqueueItem], Meta(min_length=1, max_length=m.BATCH_MAX)])
SETTLE: Body[wire.SettleItem | list[wire.SettleItem]] = Body(wire.SettleItem | Annotated[list[wire.SettleItem], Meta(max_length=m.BATCH_MAX)])
EXTEND: Body[wire.ExtendItem | list[wire.ExtendItem]] = Body(wire.ExtendItem | Annotated[list[wire.ExtendItem], Meta(max_length=m.BATCH_MAX)])
POLL: Body[wire.Poll] = Body(wire.Poll)
WAIT_CANCELLED: Body[wire.WaitCancelled] = Body(wire.WaitCancelled)
WORKER: Body[wire.Worker] = Body(wire.Worker)
DEAD_IDS: Body[wire.DeadId | list[wire.DeadId]] = Body(wire.DeadId | Annotated[list[wire.DeadId], Meta(max_length=m.BATCH_MAX)])
SCHEDULE: Body[wire.ScheduleItem] = Body(wire.ScheduleItem)


_SURROGATE = re.compile("[\ud800-\udfff]")


def is_text(value: str) -> bool:
    """Can PostgreSQL hold it?"""
    return "\x00" not in value and (value.isascii() or _SURROGATE.search(value) is None)


def query(type: type[Q], raw: bytes) -> Q:
    """Reads a query string as `type`; workers repeat theirs, so the answers are kept."""
    return _query(type, raw)  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)
def _query(type: Any, raw: bytes) -> Any:
    try:
        if len(raw) > QUERY_MAX:
            raise Invalid(f"query string longer than {QUERY_MAX} bytes")
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
        return msgspec.convert(_collect(pairs, several="topic" if type is FetchQuery else None), type, strict=False)
    except msgspec.ValidationError as error:
        raise explain(error, "parameter") from None
    except ValueError:
        raise Invalid("the query string is malformed or has too many parameters") from None


def _collect(pairs: list[tuple[str, str]], several: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name == several:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise Invalid(f"{name[:64]}: given twice", field=name[:64])
        else:
            found[name] = value
    return found


_COMMENT = re.compile(rb'("(?:[^"\\]++|\\.)*+"?)|//[^\n]*', re.DOTALL)  # the closing quote optional: linear on any input


def _without_comments(body: bytes) -> bytes:
    return _COMMENT.sub(lambda match: match[1] or b"", body)


_AT = re.compile(r"^(.*) - at (?:`key` in )?`\$(.*)`$", re.DOTALL)
_PATH = re.compile(r"(?:\.settle)?(?:\[(\d+)\])?\.?(.*)", re.DOTALL)
_NAMED = re.compile(r"(?:missing required|contains unknown) field `(.*)`$", re.DOTALL)


def explain(error: Exception, part: str = "body") -> MQueueError:
    """Returns what a decoder's exception says, as an `Invalid` with item and field."""
    if isinstance(error, RecursionError):
        return Invalid(f"the {part} is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Invalid(f"the {part} is not valid UTF-8")
    text, path = str(error), ""
    if located := _AT.match(text):
        text, path = located[1], located[2]
    where = _PATH.fullmatch(path)
    item = int(where[1]) if where and where[1] else None
    field = where[2] if where else ""
    if named := _NAMED.search(text):
        field = f"{field}.{named[1]}" if field else named[1]
    return _invalid(_plain(text, part), item, field[:64] or None)


def wrong(detail: str, item: int | None = None, field: str | None = None) -> Invalid:
    """Returns an `Invalid` of our own checks, in the same words: `item 3, topic: …`."""
    return _invalid(detail, item, field)


def _invalid(detail: str, item: int | None, field: str | None) -> Invalid:
    place = ", ".join(filter(None, [f"item {item}" if item is not None else "", field or ""]))
    return Invalid(f"{place}: {detail}" if place else detail, item=item, field=field)


_PLAIN = (
    ("Expected `str` matching regex", NAME_RULE),
    ("Invalid base64", "must be standard base64 with its padding (RFC 4648, section 4)"),
    ("Invalid RFC3339", "must be an RFC 3339 time such as 2025-12-25T10:00:00Z"),
    ("Expected `datetime` with a timezone", "must be an RFC 3339 time with its zone, such as 2025-12-25T10:00:00Z"),
    ("Expected `array`, got `object`", "must be an array, also for one: [{…}]"),
    ("Object missing required field", "is required"),
)


def _plain(text: str, part: str) -> str:
    for start, plain in _PLAIN:
        if text.startswith(start):
            return plain
    if text.startswith("Object contains unknown field"):
        return "is not a known parameter" if part == "parameter" else "is not a known field"
    if text.startswith(("JSON is malformed", "Input data was truncated", "MessagePack data is malformed")):
        return f"the {part} cannot be decoded: {text}"
    if text.startswith("Expected `array` of length"):
        return f"expected an array {text.removeprefix('Expected `array` ')}"
    return text[:1].lower() + text[1:].replace("`", "")
