"""Requests and replies without a network; which broker; when to try again."""

import pickle
import random
from datetime import UTC, datetime

import msgspec
import pytest

from mqueue import message as m
from mqueue import wire
from mqueue.broker.http import problem as only_http
from mqueue.client import protocol, retry
from mqueue.client.endpoint import NoEndpoint, discover
from mqueue.client.sharing import Caller, refused
from mqueue.errors import BufferFull, Invalid, KeyReused, MQueueError, NotFound, QuotaExceeded, Stale, Unavailable
from mqueue.paths import Endpoint

PROBLEM = {"Content-Type": "application/problem+json"}


def problem(status: int, code: str, **more: object) -> bytes:
    return msgspec.json.encode({"title": "t", "status": status, "code": code, "detail": "why", "type": "about:blank", **more})


def test_an_enqueue_travels_as_msgpack_with_its_payload_as_bytes() -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
    call = protocol.enqueue([wire.EnqueueItem(topic="t", payload=b"\x00\xff", deliver_after=at)])
    assert call.headers["Content-Type"] == call.headers["Accept"] == "application/msgpack"
    [item] = msgspec.msgpack.decode(call.body, type=list[wire.EnqueueItem])
    assert (item.payload, item.deliver_after, item.idempotency_key) == (b"\x00\xff", at, None)
    assert not call.repeatable
    assert protocol.answer(call, 200, {}, msgspec.msgpack.encode([2**62])) == [2**62]


def test_safe_retries_give_a_request_a_key_of_its_own() -> None:
    items = [wire.EnqueueItem(topic="t"), wire.EnqueueItem(topic="t")]
    call, other = protocol.enqueue(items, safe_retries=True), protocol.enqueue(items, safe_retries=True)
    assert call.headers["Idempotency-Key"] != other.headers["Idempotency-Key"]
    assert call.repeatable and call.body == other.body


def test_where_some_items_have_a_key_every_other_gets_one_and_the_request_none() -> None:
    items = [wire.EnqueueItem(topic="t"), wire.EnqueueItem(topic="t", idempotency_key="mine"), wire.EnqueueItem(topic="t")]
    call = protocol.enqueue(items, safe_retries=True)
    keys = [i.idempotency_key for i in msgspec.msgpack.decode(call.body, type=list[wire.EnqueueItem])]
    assert keys[1] == "mine" and len(set(keys)) == 3
    assert call.repeatable and "Idempotency-Key" not in call.headers
    assert items[0].idempotency_key is None


@pytest.mark.parametrize(("count", "size"), [(2500, 10), (60, 256 * 1024)])
def test_batches_fit_a_request(count: int, size: int) -> None:
    items = [wire.EnqueueItem(topic="t", payload=bytes(size)) for _ in range(count)]
    batches = list(protocol.batches(items))
    assert [i for batch in batches for i in batch] == items
    assert all(len(batch) <= m.BATCH_MAX for batch in batches)
    assert all(len(protocol.enqueue(batch, safe_retries=True).body or b"") <= m.BODY_MAX for batch in batches)
    assert len(batches) == 3


def test_a_fetch_names_all_its_topics() -> None:
    call = protocol.fetch(["a", "b"], "ns", 7, 1.5, None)
    assert call.path == "/dequeue?namespace=ns&topic=a&topic=b&limit=7&wait=1.5"
    assert call.wait == 1.5 and not call.repeatable


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid", Invalid),
        (409, "stale", Stale),
        (422, "key-reused", KeyReused),
        (429, "quota-exceeded", QuotaExceeded),
        (503, "buffer-full", BufferFull),
        (503, "from-a-newer-broker", Unavailable),
    ],
)
def test_a_problem_becomes_the_error_of_its_code(status: int, code: str, kind: type[MQueueError]) -> None:
    with pytest.raises(kind) as caught:
        protocol.answer(protocol.health(), status, PROBLEM, problem(status, code, item=3, field="topic", retry_after=2.5))
    error = caught.value
    assert type(error) is kind
    assert (error.detail, error.item, error.field, error.retry_after) == ("why", 3, "topic", 2.5)


def test_every_code_that_a_broker_sends_is_on_the_error() -> None:
    """Its own class or not."""
    known = [kind for kind in every(MQueueError) if kind.__module__ in ("mqueue.errors", only_http.__name__)]
    assert len(known) >= 18
    for kind in known:
        error = protocol.error(kind.status, {}, problem(kind.status, kind.code))
        assert (error.code, error.detail, error.retryable) == (kind.code, "why", kind.retryable or kind.status >= 500), kind
        assert pickle.loads(pickle.dumps(error)).code == kind.code
    newer = protocol.error(503, {}, problem(503, "from-a-newer-broker"))
    assert newer.code == "from-a-newer-broker" and Unavailable.code == "unavailable"
    assert protocol.error(503, {}, b"proxy").code == protocol.error(503, {}, problem(503, "")).code == "unavailable"


def every(kind: type[MQueueError]) -> list[type[MQueueError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every(child))]


def test_what_many_are_told_of_one_refusal_has_its_code() -> None:
    two = [Caller(b"", lambda: None), Caller(b"", lambda: None)]
    refused(two, protocol.error(431, {}, problem(431, "headers-too-large", retry_after=3.0)))
    errors = [caller.error for caller in two]
    assert [(error.code, error.detail, error.retry_after) for error in errors if error] == [("headers-too-large", "why", 3.0)] * 2
    assert errors[0] is not errors[1]


@pytest.mark.parametrize("body", [b"<html>a proxy", problem(408, "request-timeout")])
def test_what_came_too_slowly_may_be_sent_again(body: bytes) -> None:
    error = protocol.error(408, {}, body)
    assert isinstance(error, Unavailable) and (error.code, error.status) == ("request-timeout", 408)
    assert retry.pause_s(1, error, 0.0) == 0.2


def test_retry_after_is_read_from_the_header_too() -> None:
    assert protocol.error(503, {"Retry-After": "7"}, problem(503, "unavailable")).retry_after == 7


@pytest.mark.parametrize("status", [500, 502, 404, 418])
def test_an_answer_that_is_no_brokers_is_an_error_that_shows_it(status: int) -> None:
    error = protocol.error(status, {}, b"<html>proxy says no</html>")
    assert isinstance(error, Unavailable) == (status >= 500)
    assert not isinstance(error, NotFound)
    assert str(status) in error.detail and "proxy says no" in error.detail


@pytest.mark.parametrize("body", [b"<html>", b'[{"id": 1, "status": "\xff"}]', b"[" * 20_000])
def test_a_200_that_is_no_brokers_is_unavailable(body: bytes) -> None:
    with pytest.raises(Unavailable, match="not a broker's"):
        protocol.answer(protocol.extend([]), 200, {}, body)


def test_messages_are_settled_by_their_receipt() -> None:
    now = datetime.now(UTC)
    message = wire.Message(
        id=5, namespace="n", topic="t", priority=0, payload=b"", deliver_after=now, created_at=now, attempt=1, max_retries=3,
        receipt="1-9", lease_expires_at=now, lease=30.0,
    )  # fmt: skip
    item = wire.SettleItem(id=6, topic="t")
    first, second = protocol.nack_items([message, item], "broken", 4.0)
    assert (first.id, first.namespace, first.receipt, first.error, first.retry_after) == (5, "n", "1-9", "broken", 4.0)
    assert second is item
    assert not protocol.settle("/nack", [first, second]).repeatable  # a second nack without a receipt might hit the next lease
    assert protocol.settle("/nack", [first]).repeatable
    assert protocol.settle("/ack", [second]).repeatable


def test_retries_pause_longer_each_time_and_end() -> None:
    error = Unavailable()
    assert [retry.pause_s(n, error, 0.0) for n in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, None]
    assert retry.pause_s(1, Unavailable(retry_after=3), 0.5) == 4.5
    assert retry.pause_s(1, Unavailable(retry_after=300), 0.0) is None
    assert retry.pause_s(1, QuotaExceeded(retry_after=1), 0.0) is None
    assert all(0.2 <= (retry.pause_s(1, error, random.random()) or 0) < 0.4 for _ in range(50))


def kept() -> Endpoint:
    return Endpoint("http://127.0.0.1:8080", "kept")


@pytest.mark.parametrize(
    ("url", "token", "environ", "expected"),
    [
        (None, None, {}, Endpoint("http://127.0.0.1:8080", "kept")),
        ("http://a/", "t", {"MQUEUE_URL": "http://b", "MQUEUE_TOKEN": "u"}, Endpoint("http://a", "t")),
        (None, None, {"MQUEUE_URL": "https://b", "MQUEUE_TOKEN": "u"}, Endpoint("https://b", "u")),
        ("http://127.0.0.1:8080/", None, {}, Endpoint("http://127.0.0.1:8080", "kept")),
        (" https://[::1]:8080/mq/\n", "t\r\n", {}, Endpoint("https://[::1]:8080/mq", "t")),
        (None, None, {"MQUEUE_URL": "http://b\n", "MQUEUE_TOKEN": " u\n"}, Endpoint("http://b", "u")),
        ("http://elsewhere", None, {}, Endpoint("http://elsewhere", None)),  # the kept token is not for others
        (None, None, {"MQUEUE_URL": "", "MQUEUE_TOKEN": "u"}, Endpoint("http://127.0.0.1:8080", "u")),
    ],
)
def test_which_broker(url: str | None, token: str | None, environ: dict[str, str], expected: Endpoint) -> None:
    assert discover(url, token, environ=environ, left=kept) == expected


def test_no_broker_says_what_to_set() -> None:
    with pytest.raises(NoEndpoint, match="MQUEUE_URL"):
        discover(environ={}, left=lambda: None)
    with pytest.raises(NoEndpoint, match="http://"):
        discover("localhost:8080", environ={}, left=lambda: None)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///",
        "http://h:notaport",
        "http://h:70000",
        "http://h:",
        "http://[::1",
        "http://[:::]",
        "http://a b",
        "http://a\nb",
        "http://h?a=1",
        "http://a..b",
        "http://" + "a" * 64,
    ],
)
def test_what_is_no_url_of_a_broker_is_told_in_a_line(url: str) -> None:
    with pytest.raises(NoEndpoint, match="is not the URL of a broker") as caught:
        discover(url, "t", environ={}, left=lambda: None)
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("url", ["http://me:hidden@h", "http://me:hid/den@h:x", "me:hidden@h", "http://hidden@h", "http://h?token=hidden"])
def test_a_password_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(NoEndpoint, match="no password") as caught:
        discover(url, "t", environ={}, left=lambda: None)
    assert "hid" not in caught.value.detail


@pytest.mark.parametrize("token", ["hid\nden", "hid den", "hid\u2013den", "hid\udcffden"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(NoEndpoint, match="MQUEUE_TOKEN") as caught:
        discover("http://h", token, environ={}, left=lambda: None)
    assert "hid" not in caught.value.detail


def test_topics_of_only_some_shards_are_no_answer() -> None:
    with pytest.raises(Unavailable, match="not all shards answer, without: 1, 3"):
        protocol.answer(protocol.topics(None), 200, {"Mqueue-Missing-Shards": "1, 3"}, b"[]")
    assert protocol.answer(protocol.topics(None), 200, {}, b"[]") == []
