"""`OPTIONS` of a backend, checked when it is made: a broker would refuse the messages when the transaction has committed."""

from typing import Annotated, Any

import msgspec
from django.core.exceptions import ImproperlyConfigured
from msgspec import Meta

from mqueue import message as m
from mqueue import wire

Retries = Annotated[int, Meta(ge=0, le=m.RETRIES_MAX)]
ResultTtl = Annotated[float, Meta(gt=0, le=m.RESULT_TTL_MAX_S)]


class Options(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """All optional; the names are written in capitals."""

    url: str | None = None
    token: str | None = None  # the broker; without them it is found as ever
    batch: bool = False  # threads that enqueue at the same time share a request
    namespace: wire.Name = m.DEFAULT_NAMESPACE  # of its messages
    max_retries: Retries | None = None
    lease: wire.Lease | None = None  # seconds; of both, None is the broker's default
    result_ttl: ResultTtl | None = m.RESULT_TTL_S  # seconds that results are kept; None: not at all
    enqueue_on_commit: bool = True  # inside a transaction a task is enqueued when it commits, and not if it rolls back
    database: str = "default"  # whose transactions those are
    middleware: tuple[str, ...] = ("mqueue.LogContext",)  # dotted paths of middleware without arguments


def read(where: str, given: dict[str, Any]) -> Options:
    """`where`: in the settings. Raises ImproperlyConfigured."""
    names = Options.__struct_encode_fields__
    if wrong := sorted(set(given) - set(names)):
        raise ImproperlyConfigured(f"{where}: OPTIONS has {', '.join(wrong)}; there are: {', '.join(sorted(names))}")
    try:
        return msgspec.convert(given, Options)
    except msgspec.ValidationError as error:
        raise ImproperlyConfigured(f"{where}: OPTIONS: {error}") from error
