"""`OPTIONS` of a backend are checked when it is made: a broker would refuse the messages only when the
transaction has committed.
"""

from typing import Annotated, Any, cast

import msgspec
from django.core.exceptions import ImproperlyConfigured
from msgspec import Meta

from mqueue import message as m
from mqueue import wire
from mqueue.worker.tasks.producer import ClientOptions

Retries = Annotated[int, Meta(ge=0, le=m.RETRIES_MAX)]
ResultTtl = Annotated[float, Meta(gt=0, le=m.RESULT_TTL_MAX_S)]


class Options(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """All are optional; the names are written in capitals."""

    url: str | None = None
    token: str | None = None  # both are the broker's; without them it is found as usual
    timeout: float | None = None  # these four are the client's, which has defaults of its own
    retries: bool | None = None
    connections: int | None = None
    batch: bool | None = None
    namespace: wire.Name = m.DEFAULT_NAMESPACE  # of its messages
    max_retries: Retries | None = None
    lease: wire.Lease | None = None  # seconds; for both, None is the broker's default
    result_ttl: ResultTtl | None = m.RESULT_TTL_S  # seconds that results are kept; None: not at all
    enqueue_on_commit: bool = True  # inside a transaction a task is enqueued when it commits, and not if it rolls back
    database: str = "default"  # whose transactions those are
    middleware: tuple[str, ...] = ("mqueue.LogContext",)  # dotted paths of middleware without arguments

    def client(self) -> ClientOptions:
        told = {"timeout": self.timeout, "retries": self.retries, "connections": self.connections, "batch": self.batch}
        return cast(ClientOptions, {name: value for name, value in told.items() if value is not None})


def read(where: str, given: dict[str, Any]) -> Options:
    """`where` is the place in the settings. Raises ImproperlyConfigured."""
    names = Options.__struct_encode_fields__
    if wrong := sorted(set(given) - set(names)):
        raise ImproperlyConfigured(f"{where}: OPTIONS has {', '.join(wrong)}; there are: {', '.join(sorted(names))}")
    try:
        options = msgspec.convert(given, Options)
        if options.timeout is not None or options.connections is not None:
            from mqueue.client import protocol  # it brings both clients, which nobody needs who names neither

            protocol.check_limits(
                protocol.TOTAL_S if options.timeout is None else options.timeout,
                protocol.CONNECTIONS if options.connections is None else options.connections,
            )
        return options
    except ValueError as error:  # msgspec's, too
        raise ImproperlyConfigured(f"{where}: OPTIONS: {error}") from error
