"""This adds to the metadata of messages what carries a trace from who enqueues to who runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mqueue import message as m
from mqueue import wire


def add(messages: Sequence[wire.EnqueueItem], headers: Mapping[str, str]) -> None:
    """Adds the first headers, as many as there is room for, unless the message has an idempotency key: a repeat in
    another trace would be another message, and refused. What the caller has set stays.
    """
    for message in messages:
        if message.idempotency_key is None:
            message.metadata = _with(message.metadata or {}, headers) or message.metadata


def _with(metadata: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    grown = dict(metadata)
    room = m.METADATA_MAX - _size(metadata)
    for name, value in headers.items():
        if name not in grown and (room := room - _size({name: value})) >= 0:
            grown[name] = value
    return grown


def _size(metadata: Mapping[str, Any]) -> int:
    """Returns the bytes of JSON. What has no such form counts as full: it is not for tracing to refuse it."""
    try:
        return len(msgspec.json.encode(metadata))
    except (TypeError, ValueError, OverflowError):
        return m.METADATA_MAX


def text(metadata: Mapping[str, object]) -> dict[str, str]:
    """Returns the metadata's strings: a propagator knows nothing else."""
    return {key: value for key, value in metadata.items() if isinstance(value, str)}
