"""One value for each field that a message may be enqueued with, and which of them are shown again, by the same name.

Whoever adds a field to `wire.EnqueueItem` gives it a value here; the tests that use it then tell where it is lost.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from mqueue import wire

VALUES: dict[str, Any] = {
    "topic": "t",
    "namespace": "fields",
    "priority": -3,
    "payload": b"\0\xffx",
    "metadata": {"a": [1, None, {"b": "\N{SNOWMAN}"}]},
    "deliver_after": datetime(2020, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC),  # it is due
    "delay": 0.05,
    "ttl": 3600.0,
    "idempotency_key": "once",
    "max_retries": 1,
    "lease": 77.0,
    "unique_key": "one waits",
}

EITHER = ("deliver_after", "delay")  # a message has one of these at most

_NOT_BY_NAME = {
    "delay": "becomes deliver_after",
    "ttl": "becomes a time of its end, which is not shown",
    "idempotency_key": "is for the enqueue; it is stored, and not shown",
    "unique_key": "is for the enqueue; its hash is stored",
}
_NO_LEASE = {"lease": "is for who fetches it"}

# Why these do not show a field of an enqueue, or not by its name.
NOT_SHOWN: dict[type[msgspec.Struct], dict[str, str]] = {
    wire.Message: _NOT_BY_NAME,
    wire.Status: _NOT_BY_NAME | _NO_LEASE,
    wire.DeadItem: _NOT_BY_NAME | _NO_LEASE | {"deliver_after": "it is never due again", "max_retries": "they are used up"},
}
AFTER_NACK = {"deliver_after": "becomes the time of its retry"}


def of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns the names of its fields, each with its default."""
    return {field.name: field.default for field in msgspec.structs.fields(kind)}


def ways(**changes: Any) -> list[wire.EnqueueItem]:
    """Makes messages that together have all values: one for each of the fields that exclude each other."""
    values = VALUES | changes
    return [
        wire.EnqueueItem(**{name: value for name, value in values.items() if name not in EITHER or name == one}) for one in EITHER
    ]  # fmt: skip


def differences(item: wire.EnqueueItem, shown: msgspec.Struct, but: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Compares each field that both have by the same name. Returns those that differ: as it went, as it is shown."""
    found = {}
    for name in of(type(item)).keys() & of(type(shown)).keys() - {*but}:
        went, came = getattr(item, name), getattr(shown, name)
        came = msgspec.json.decode(came) if isinstance(came, msgspec.Raw) else came
        if went != came and not (name in EITHER and went is None):
            found[name] = (went, came)
    return found
