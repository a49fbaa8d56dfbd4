"""mqueue raises these errors on purpose.

    MQueueError
    ├── Invalid              400  invalid            a field is wrong; nothing was changed
    ├── Unauthorized         401  unauthorized       token missing, bad or expired
    ├── Forbidden            403  forbidden          the token lacks the scope
    ├── NotFound             404  not-found          no such thing, or not for this token
    ├── Pending              404  pending            no result yet: the message waits or is being worked on
    ├── JobFailed            410  dead-letter        no result will come: it is a dead letter; the detail is its error
    ├── Stale                409  stale              the receipt is no longer current; nothing was changed
    ├── InFlight             409  in-flight          another request with this idempotency key is not durable yet
    ├── TooLarge             413  too-large          body over its limit
    ├── KeyReused            422  key-reused         idempotency key seen with another body
    ├── QuotaExceeded        429  quota-exceeded     enqueues a minute of this namespace are used up
    └── Unavailable          503  unavailable        cannot serve it now; unknown whether it happened unless told
        └── BufferFull       503  buffer-full        the write-behind buffer has no room; nothing was stored

`code` is stable and part of the API (RFC 9457 problem documents); `retryable` says whether the same call may succeed
later.
"""

from typing import ClassVar


class MQueueError(Exception):
    """All errors derive from this one. `retry_after`: seconds a caller should wait, or None. `item`, `field`: what
    in a request was wrong.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, retry_after: float | None = None, item: int | None = None, field: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = retry_after
        self.item = item
        self.field = field


class Invalid(MQueueError):
    code, status, title = "invalid", 400, "Bad request"


class Unauthorized(MQueueError):
    code, status, title = "unauthorized", 401, "Token missing or not valid"


class Forbidden(MQueueError):
    code, status, title = "forbidden", 403, "Not allowed by this token"


class NotFound(MQueueError):
    code, status, title = "not-found", 404, "Not found"


class Pending(MQueueError):
    code, status, title, retryable = "pending", 404, "There is no result yet", True


class JobFailed(MQueueError):
    code, status, title = "dead-letter", 410, "The message is a dead letter"


class Stale(MQueueError):
    code, status, title = "stale", 409, "The receipt is no longer current"


class InFlight(MQueueError):
    code, status, title, retryable = "in-flight", 409, "The same idempotency key is in flight", True


class TooLarge(MQueueError):
    code, status, title = "too-large", 413, "Request body too large"


class KeyReused(MQueueError):
    code, status, title = "key-reused", 422, "Idempotency key used before with another body"


class QuotaExceeded(MQueueError):
    code, status, title, retryable = "quota-exceeded", 429, "Quota exceeded", True


class Unavailable(MQueueError):
    code, status, title, retryable = "unavailable", 503, "Cannot serve this now", True


class BufferFull(Unavailable):
    code, title = "buffer-full", "The write-behind buffer is full"


BY_CODE: dict[str, type[MQueueError]] = {
    cls.code: cls
    for cls in (
        Invalid, Unauthorized, Forbidden, NotFound, Pending, JobFailed, Stale, InFlight, TooLarge, KeyReused, QuotaExceeded, Unavailable,
        BufferFull,
    )
}  # fmt: skip
