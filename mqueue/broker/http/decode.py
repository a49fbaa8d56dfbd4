"""Bodies and query strings become the structs of `mqueue.wire` here, or plain words about what is wrong with them. This
is pure.

Every failure is an `Invalid` that names the item (its index in the array) and the field, as far as there are such.
"""

import re
from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct

from mqueue import message as m
from mqueue import wire
from mqueue.broker.http.elements import TOO_MANY, BadElement, elements, strings
from mqueue.errors import Invalid, MQueueError

T = TypeVar("T")
S = TypeVar("S", bound=Struct)
Q = TypeVar("Q", bound=Struct)
Steps: TypeAlias = Generator[None, None, T]  # between two of them the loop may turn

NAME_RULE = "1 to 128 of letters, digits, _ . -"
TEXT_RULE = "U+0000 and lone surrogates are not allowed"
QUERY_MAX = 16 * 1024  # bytes
PARAMETERS_MAX = m.TOPICS_MAX + 8
SMALL = 32 * 1024  # bytes of a body that is decoded in one go: it takes some ms at worst
COMMENTS_MAX = 64 * 1024  # bytes of JSON that may have `//` comments
STRINGS_MAX = 20_000  # in a large body of JSON: 1,000 items with all their fields have fewer
METADATA_CAME_MAX = 8 * m.METADATA_MAX  # bytes of metadata as it came: spaces, escapes, MessagePack's wide numbers
ITEM_STRINGS_MAX = 64 + METADATA_CAME_MAX // 2  # of its fields, and of its metadata
TEXT_MAX = 1_000  # characters that are looked at of what a decoder says: it quotes the request


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


class MessageQuery(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`GET /messages/{id}`."""

    topic: wire.Name | None = None
    namespace: wire.Name = m.DEFAULT_NAMESPACE


class ResultQuery(MessageQuery, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """`GET /messages/{id}/result`."""

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


class EnqueueItem(wire.EnqueueItem, forbid_unknown_fields=True, kw_only=True):
    """Its metadata stays as it came, until its length has been looked at."""

    metadata: msgspec.Raw = msgspec.Raw()  # type: ignore[assignment]


class ScheduleItem(wire.ScheduleItem, forbid_unknown_fields=True, kw_only=True):
    """The same for a schedule."""

    metadata: msgspec.Raw = msgspec.Raw()  # type: ignore[assignment]


class _RawPoll(wire.Poll, forbid_unknown_fields=True, kw_only=True):
    settle: Annotated[list[msgspec.Raw], Meta(max_length=m.BATCH_MAX)] = []  # type: ignore[assignment]  # noqa: RUF012


class Body(Generic[T]):
    """Decoders of one type, made once. `size`: bytes a body may have.

    What is small is decoded in one go. What is large must be cheap, too, whatever it says: a decoder takes a value for
    value's time before it looks at limits, and does not look at whether a field is given twice. So the strings of JSON
    are counted first: each field has one, and each element of a list of names.
    """

    def __init__(self, type: Any, size: int = m.BODY_MAX) -> None:
        self.size = size
        self._json = msgspec.json.Decoder(type)
        self._msgpack = msgspec.msgpack.Decoder(type)

    def decode(self, body: bytes, msgpack: bool) -> T:
        """Returns a small body as its type. Raises Invalid."""
        try:
            if msgpack:
                return self._msgpack.decode(body)  # type: ignore[no-any-return]
            return self._json.decode(body)  # type: ignore[no-any-return]
        except (ValueError, RecursionError) as error:
            return self._second_look(body, msgpack, error)

    def read(self, body: bytes, msgpack: bool) -> Steps[T]:
        """Does the same with a large one, in steps of which none takes long."""
        if msgpack:
            return (yield from self._unpack(body))
        if strings(body) > STRINGS_MAX:
            yield
            return (yield from self._read_dense(body))
        return self.decode(body, msgpack)

    def _unpack(self, body: bytes) -> Steps[T]:
        yield
        return self.decode(body, True)

    def _read_dense(self, body: bytes) -> Steps[T]:
        raise Invalid(f"more than {STRINGS_MAX} strings: fields are given twice, or lists are longer than allowed")
        yield  # makes it a generator

    def _second_look(self, body: bytes, msgpack: bool, error: Exception) -> T:
        """Reads JSON with `//` comments, which often has been copied out of a document; that costs
        the others nothing.
        """
        if not msgpack and len(body) <= COMMENTS_MAX and b"//" in body and not isinstance(error, msgspec.ValidationError):
            try:
                return self._json.decode(_without_comments(body))  # type: ignore[no-any-return]
            except (ValueError, RecursionError) as second:
                raise explain(second) from None
        raise explain(error) from None


class _Items(Body[list[S]]):
    """An array of one type."""

    def __init__(self, item: type[S]) -> None:
        super().__init__(Annotated[list[item], Meta(min_length=1, max_length=m.BATCH_MAX)])  # type: ignore[valid-type]
        self._item = _Packed(item)
        self._read_item = msgspec.json.Decoder(item).decode

    def _unpack(self, body: bytes) -> Steps[list[S]]:
        items = yield from self._item.several(_packed_items(body))
        if not items:
            raise explain(msgspec.ValidationError("Expected `array` of length >= 1"))
        return items

    def _read_dense(self, body: bytes) -> Steps[list[S]]:
        """Decodes one item after the other: metadata may have any number of strings."""
        try:
            _check_syntax(body)
        except (ValueError, RecursionError) as error:
            raise explain(error) from None
        yield
        items: list[S] = []
        for found in self._elements(body):
            yield
            if found is None:
                continue
            start, end = found
            if strings(body, start, end) > ITEM_STRINGS_MAX:
                raise wrong(TOO_MANY, len(items))
            try:
                items.append(self._read_item(memoryview(body)[start:end]))
            except (ValueError, RecursionError) as error:
                raise explain(error, item=len(items)) from None
        return items

    def _elements(self, body: bytes) -> Iterator[tuple[int, int] | None]:
        try:
            yield from elements(body, m.BATCH_MAX, 2 * ITEM_STRINGS_MAX)
        except BadElement as bad:
            raise wrong(bad.detail, bad.index) from None


class _OneOrMany(Body[S | list[S]]):
    """One, or an array."""

    def __init__(self, item: type[S], size: int = m.BODY_MAX) -> None:
        super().__init__(item | Annotated[list[item], Meta(max_length=m.BATCH_MAX)], size)  # type: ignore[valid-type]
        self._item = _Packed(item)

    def _unpack(self, body: bytes) -> Steps[S | list[S]]:
        if _entries(body) is not None:
            return self._item.one(body, None)
        return (yield from self._item.several(_packed_items(body)))


class _Polls(Body[wire.Poll]):
    def __init__(self) -> None:
        super().__init__(wire.Poll)
        self._poll = _Packed(_RawPoll)
        self._settle = _Packed(wire.PollSettle)

    def _unpack(self, body: bytes) -> Steps[wire.Poll]:
        poll = self._poll.one(body, None)
        yield
        poll.settle = yield from self._settle.several(poll.settle)  # type: ignore[assignment]
        return poll


class _Packed(Generic[S]):
    """Structs in large MessagePack bodies: how many entries a map has stands at its head."""

    def __init__(self, type: type[S]) -> None:
        self._decode = msgspec.msgpack.Decoder(type).decode
        self._fields = len(type.__struct_fields__)

    def one(self, packed: Any, item: int | None) -> S:
        if (_entries(packed) or 0) > self._fields:
            raise wrong("fields are given twice, or are not known", item)
        try:
            return self._decode(packed)
        except (ValueError, RecursionError) as error:
            raise explain(error, item=item) from None

    def several(self, packed: list[msgspec.Raw]) -> Steps[list[S]]:
        items = []
        for index, each in enumerate(packed):
            items.append(self.one(each, index))
            yield
        return items


ENQUEUE: Body[list[EnqueueItem]] = _Items(EnqueueItem)
SETTLE: Body[wire.SettleItem | list[wire.SettleItem]] = _OneOrMany(wire.SettleItem)
EXTEND: Body[wire.ExtendItem | list[wire.ExtendItem]] = _OneOrMany(wire.ExtendItem, 512 * 1024)
POLL: Body[wire.Poll] = _Polls()
WAIT_CANCELLED: Body[wire.WaitCancelled] = Body(wire.WaitCancelled, 64 * 1024)
WORKER: Body[wire.Worker] = Body(wire.Worker, 2 * m.REPORT_MAX)
DEAD_IDS: Body[wire.DeadId | list[wire.DeadId]] = _OneOrMany(wire.DeadId, 512 * 1024)
SCHEDULE: Body[ScheduleItem] = Body(ScheduleItem, 256 * 1024)

_packed_array = msgspec.msgpack.Decoder(Annotated[list[msgspec.Raw], Meta(max_length=m.BATCH_MAX)]).decode
_check_syntax = msgspec.json.Decoder(msgspec.Raw).decode


def _packed_items(body: bytes) -> list[msgspec.Raw]:
    try:
        return _packed_array(body)
    except (ValueError, RecursionError) as error:
        raise explain(error) from None


def _entries(packed: Any) -> int | None:
    """Returns how many entries a MessagePack map says it has; None where it is something else."""
    head = bytes(memoryview(packed)[:5])
    if head[:1] == b"\xdf":
        return int.from_bytes(head[1:])
    if head[:1] == b"\xde":
        return int.from_bytes(head[1:3])
    return head[0] & 15 if head and head[0] & 0xF0 == 0x80 else None


def at_once(work: Steps[T]) -> T:
    """Does all steps in one go."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


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
_PATH = re.compile(r"(?:\.settle)?(?:\[(\d{1,6})\])?\.?(.*)", re.DOTALL)
_NAMED = re.compile(r"(?:missing required|contains unknown) field `(.*)`$", re.DOTALL)


def explain(error: Exception, part: str = "body", item: int | None = None) -> MQueueError:
    """Returns what a decoder's exception says, as an `Invalid` with item and field. `item`: which one was decoded by
    itself.
    """
    if isinstance(error, RecursionError):
        return Invalid(f"the {part} is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Invalid(f"the {part} is not valid UTF-8")
    text, path = _bounded(str(error)), ""
    if located := _AT.match(text):
        text, path = located[1], located[2]
    where = _PATH.fullmatch(path)
    if item is None and where and where[1]:
        item = int(where[1])
    field = where[2] if where else ""
    if named := _NAMED.search(text):
        field = f"{field}.{named[1]}" if field else named[1]
    return _invalid(_plain(text, part), item, field[:64] or None)


def _bounded(text: str) -> str:
    """Leaves beginning and end, where all is said that is not quoted."""
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX // 2]}…{text[-TEXT_MAX // 2 :]}"


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
