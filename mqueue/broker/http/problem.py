"""Errors leave as RFC 9457 problem documents; the few errors that only HTTP knows are here."""

import math

import msgspec

from mqueue import wire
from mqueue.errors import JobFailed, MQueueError
from mqueue.message import ERROR_MAX

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]

CONTENT_TYPE = (b"content-type", b"application/problem+json")
DETAIL_MAX = 500  # characters: a request's own words may come back in it

_encode = msgspec.json.Encoder().encode


class NoSuchEndpoint(MQueueError):
    code, status, title = "not-found", 404, "No such endpoint"


class MethodNotAllowed(MQueueError):
    code, status, title = "method-not-allowed", 405, "Method not allowed"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allow = ", ".join(allowed)
        super().__init__(f"allowed here: {self.allow}")


class RequestTimeout(MQueueError):
    code, status, title, retryable = "request-timeout", 408, "The request took too long to arrive", True


class HeadersTooLarge(MQueueError):
    code, status, title = "headers-too-large", 431, "Request headers too large"


def answer(error: MQueueError) -> Answer:
    """Returns status, headers and body. 429 and 503 always carry Retry-After, whole seconds, at least 1."""
    body = _encode(
        wire.Problem(
            title=error.title,
            status=error.status,
            code=error.code,
            detail=error.detail[: ERROR_MAX if isinstance(error, JobFailed) else DETAIL_MAX],
            item=error.item,
            field=error.field,
            retry_after=error.retry_after,
        )
    )
    headers = [CONTENT_TYPE, (b"content-length", b"%d" % len(body))]
    if error.status in (429, 503) or error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after or 1.0))))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    return error.status, headers, body
