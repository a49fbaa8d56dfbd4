"""Every refusal: status, code, the item and field it names, and that nothing reached the engine."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from http_fake import STATUS, Broker, bearer, broker

from mqueue import errors

MSGPACK = {"Content-Type": "application/msgpack"}


@pytest.fixture
async def b() -> AsyncIterator[Broker]:
    async with broker() as running:
        yield running


ITEMS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "topic", "is required"),
    ({"topic": "a b"}, "topic", "1 to 128 of letters, digits, _ . -"),
    ({"topic": "a\n"}, "topic", "1 to 128 of letters, digits, _ . -"),
    ({"topic": "t", "namespace": "n\n"}, "namespace", "1 to 128 of letters, digits, _ . -"),
    ({"topic": "t" * 129}, "topic", "<= 128"),
    ({"topic": 5}, "topic", "expected str, got int"),
    ({"topic": "t", "colour": 1}, "colour", "is not a known field"),
    ({"topic": "t", "priority": 2**31}, "priority", "<= 2147483647"),
    ({"topic": "t", "payload": "abc"}, "payload", "base64"),
    ({"topic": "t", "payload": "ab-_"}, "payload", "base64"),
    ({"topic": "t", "payload": "A" * (4 * 90_000)}, "payload", "length <= 262144"),
    ({"topic": "t", "ttl": 0}, "ttl", "> 0"),
    ({"topic": "t", "lease": 0.01}, "lease", ">= 0.05"),
    ({"topic": "t", "max_retries": -1}, "max_retries", ">= 0"),
    ({"topic": "t", "delay": 1, "deliver_after": "2025-12-25T10:00:00Z"}, "delay", "not both"),
    ({"topic": "t", "deliver_after": "2025-12-25T10:00:00"}, "deliver_after", "RFC 3339"),
    ({"topic": "t", "deliver_after": "tomorrow"}, "deliver_after", "RFC 3339"),
    ({"topic": "t", "deliver_after": "1969-12-31T23:59:59Z"}, "deliver_after", "1970 and 2220"),
    ({"topic": "t", "deliver_after": "2221-01-01T00:00:00Z"}, "deliver_after", "1970 and 2220"),
    ({"topic": "t", "metadata": {"a": "x" * 4096}}, "metadata", "4096 bytes"),
    ({"topic": "t", "metadata": {"a": 2**64}}, "metadata", "64 bits"),
    ({"topic": "t", "metadata": [1]}, "metadata", "expected object"),
    ({"topic": "t", "metadata": {"a\x00": 1}}, "metadata", "U+0000"),
    ({"topic": "t", "metadata": {"a": [{"b": "c\x00"}]}}, "metadata", "U+0000"),
    ({"topic": "t", "idempotency_key": "k\x00"}, "idempotency_key", "U+0000"),
]


@pytest.mark.parametrize(("item", "field", "words"), ITEMS, ids=lambda value: str(value)[:40])
async def test_one_bad_item(b: Broker, item: dict[str, Any], field: str, words: str) -> None:
    status, problem, headers = await b.post("/enqueue", [{"topic": "good"}, item])
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert (problem["status"], problem["code"], problem["item"], problem["field"]) == (400, "invalid", 1, field)
    assert problem["detail"].startswith(f"item 1, {field}: ")
    assert words in problem["detail"]
    assert "[A-Za-z" not in problem["detail"]
    assert b.engine.calls == []


MSGPACK_ITEMS: list[tuple[dict[str, Any], str]] = [
    ({"delay": float("nan")}, "delay"),
    ({"ttl": float("inf")}, "ttl"),
    ({"metadata": {"a": [float("nan")]}}, "metadata"),
    ({"metadata": {"a": b"bytes"}}, "metadata"),
    ({"metadata": {"a": {1: 2}}}, "metadata"),
    ({"payload": "text"}, "payload"),
    ({"metadata": {"a": {"\x00": 2}}}, "metadata"),
    ({"idempotency_key": "\x00"}, "idempotency_key"),
]


@pytest.mark.parametrize(("item", "field"), MSGPACK_ITEMS, ids=str)
async def test_one_bad_item_in_msgpack(b: Broker, item: dict[str, Any], field: str) -> None:
    body = msgspec.msgpack.encode([{"topic": "t"} | item])
    status, problem, headers = await b.ask("POST", "/enqueue", data=body, headers=bearer() | MSGPACK)
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert (problem["item"], problem["field"]) == (0, field)
    assert b.engine.calls == []


@pytest.mark.parametrize(
    "before", [b"\xafidempotency_key\xa3", b"\xa8metadata\x81\xa3", b"\xa8metadata\x81\xa1a\xa3"], ids=["key", "name", "value"]
)
async def test_lone_surrogates_in_msgpack(b: Broker, before: bytes) -> None:
    item = b"\x82\xa5topic\xa1t" + before + b"\xed\xa0\x80" + b"\x01" * before.endswith(b"\x81\xa3")
    status, problem, _ = await b.ask("POST", "/enqueue", data=b"\x91" + item, headers=bearer() | MSGPACK)
    assert (status, problem["code"]) == (400, "invalid")
    assert b.engine.calls == []


BODIES: list[tuple[bytes, str]] = [
    (b"", "cannot be decoded"),
    (b"[{", "cannot be decoded"),
    (b'{"topic":"t"}', "must be an array"),
    (b"[]", "length >= 1"),
    (b"[" + b'{"topic":"t"},' * 1000 + b'{"topic":"t"}]', "length <= 1000"),
    (b'[{"topic":"t","ttl":NaN}]', "cannot be decoded"),
    (b'[{"topic":"t"}] // once [', ""),
    (b'[{"topic":"\xff"}]', "UTF-8"),
    (b'[{"topic":"t","metadata":{"a":' + b"[" * 500_000, "nested too deeply"),
    (b'[{"topic":"t","metadata":{"a":' + b"[" * 40 + b"]" * 40 + b"}}]", "nested deeper than 32"),
    (b'[{"topic":"' + b'\\"' * 1_000_000 + b"//", "cannot be decoded"),
]


@pytest.mark.parametrize(("body", "words"), BODIES, ids=lambda value: str(value)[:30])
async def test_bad_bodies(b: Broker, body: bytes, words: str) -> None:
    status, problem, _ = await b.ask("POST", "/enqueue", data=body, headers=bearer())
    if not words:
        assert status == 200
        return
    assert (status, problem["code"]) == (400, "invalid")
    assert words in problem["detail"]
    assert len(problem["detail"]) <= 500
    assert b.engine.calls == []


async def test_compressed_body(b: Broker) -> None:
    status, problem, _ = await b.ask("POST", "/enqueue", data=b"x", headers=bearer() | {"Content-Encoding": "gzip"})
    assert (status, problem["field"]) == (400, "content-encoding")


async def test_line_comments_are_allowed_but_not_inside_strings(b: Broker) -> None:
    body = b'[{"topic":"t", // say "hi"\n "metadata":{"url":"http://x/\\"//y"}}]//'
    assert (await b.ask("POST", "/enqueue", data=body, headers=bearer()))[0] == 200
    assert b.engine.calls[0][1][0].metadata == b'{"url":"http://x/\\"//y"}'


QUERIES = [
    ("/dequeue", "topic"),
    ("/dequeue?topic=", "topic"),
    ("/dequeue?topic=a%0A", "topic"),
    ("/dequeue?topic=t&limit=0", "limit"),
    ("/dequeue?topic=t&limit=1001", "limit"),
    ("/dequeue?topic=t&limit=ten", "limit"),
    ("/dequeue?topic=t&wait=61", "wait"),
    ("/dequeue?topic=t&wait=nan", "wait"),
    ("/dequeue?topic=t&lease=0", "lease"),
    ("/dequeue?topic=t&colour=red", "colour"),
    ("/dequeue?topic=t&limit=1&limit=2", "limit"),
    ("/dlq?topic=a&topic=b", "topic"),
    ("/dlq?topic=a&after=-1", "after"),
    ("/topics?topic=a", "topic"),
    ("/messages/5?topics=a", "topics"),
]


@pytest.mark.parametrize(("path", "field"), QUERIES)
async def test_bad_queries(b: Broker, path: str, field: str) -> None:
    status, problem, _ = await b.get(path)
    assert (status, problem["code"]) == (400, "invalid")
    assert problem["field"].split("[")[0] == field
    assert b.engine.calls == []


@pytest.mark.parametrize("query", ["&".join(f"topic=t{n}" for n in range(80)), "topic=%ff", "topic=" + "t" * 17_000])
async def test_queries_without_end_or_sense(b: Broker, query: str) -> None:
    import yarl

    url = yarl.URL(f"{b.server.url}/dequeue?{query}", encoded=True)
    async with b.http.get(url, headers=bearer()) as response:
        assert response.status == 400
    assert b.engine.calls == []


SETTLES: list[tuple[str, Any, int | None, str]] = [
    ("/ack", {"topic": "t"}, None, "id"),
    ("/ack", {"id": 1, "topic": "t\n"}, None, "topic"),
    ("/ack", [{"id": 1, "topic": "t"}, {"id": 2**63, "topic": "t"}], 1, "id"),
    ("/nack", [{"id": 1, "topic": "t"}, {"id": 1, "topic": "t", "retry_after": -1}], 1, "retry_after"),
    ("/extend", {"id": 1, "topic": "t", "lease": 1e9}, None, "lease"),
    ("/poll", {"topics": ["a", "b c"], "limit": 1}, None, "topics[1]"),
    ("/poll", {"limit": 1}, None, "topics"),
    ("/poll", {"settle": [{"id": 1, "topic": "t", "kind": "ack"}, {"id": 1, "topic": "t", "kind": "eat"}]}, 1, "kind"),
    ("/dlq/delete", [{"id": 1, "topic": "t"}, {"id": 1}], 1, "topic"),
]


@pytest.mark.parametrize(("path", "body", "item", "field"), SETTLES)
async def test_bad_settles(b: Broker, path: str, body: Any, item: int | None, field: str) -> None:
    status, problem, _ = await b.post(path, body)
    assert (status, problem["code"], problem.get("item"), problem["field"]) == (400, "invalid", item, field)
    assert b.engine.calls == []


@pytest.mark.parametrize("path", ["/ack", "/nack", "/extend"])
async def test_stale_is_409_for_one(b: Broker, path: str) -> None:
    b.engine.verdict = "stale"
    status, problem, _ = await b.post(path, {"id": 1, "topic": "t", "receipt": "r"})
    assert (status, problem["code"]) == (409, "stale")


@pytest.mark.parametrize("error", errors.BY_CODE.values())
async def test_errors_of_the_engine(b: Broker, error: type[errors.MQueueError]) -> None:
    b.engine.fails = error("told why", item=3, field="idempotency_key")
    status, problem, headers = await b.post("/enqueue", [{"topic": "t"}])
    assert status == error.status
    assert problem == {
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": "told why",
        "item": 3,
        "field": "idempotency_key",
    }  # no type: it is about:blank
    assert headers.get("retry-after") == ("1" if status in (429, 503) else None)
    assert headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


async def test_retry_after_is_whole_seconds(b: Broker) -> None:
    b.engine.fails = errors.BufferFull(retry_after=2.1)
    _, problem, headers = await b.get("/dequeue?topic=t")
    assert (problem["retry_after"], headers["retry-after"]) == (2.1, "3")


async def test_unexpected_errors_tell_nothing(b: Broker) -> None:
    b.engine.fails = RuntimeError("postgresql://user:password@host")
    status, problem, _ = await b.post("/enqueue", [{"topic": "t"}])
    assert (status, problem["code"], problem["detail"]) == (500, "error", "Internal error")
    assert (await b.get("/health"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/enqueue", "POST"), ("HEAD", "/dequeue", "GET"), ("POST", "/dlq", "GET"), ("PUT", "/health", "GET, HEAD")],
)
async def test_method_not_allowed(b: Broker, method: str, path: str, allow: str) -> None:
    status, problem, headers = await b.ask(method, path)
    assert (status, headers["allow"]) == (405, allow)
    assert method == "HEAD" or problem["code"] == "method-not-allowed"


@pytest.mark.parametrize("path", ["/", "/enqueue/", "/messages/abc", "/%2e%2e/x", "/metrics"])
async def test_no_such_endpoint(b: Broker, path: str) -> None:
    status, problem, headers = await b.get(path)
    assert (status, problem["code"], headers["content-type"]) == (404, "not-found", "application/problem+json")


async def test_no_such_message(b: Broker) -> None:
    b.engine.status = None
    assert (await b.get("/messages/5"))[0] == 404
    assert (await b.get(f"/messages/{2**63}"))[0] == 404
    assert (await b.get("/messages/" + "9" * 4400))[0] == 404


READS = ["/dequeue?topic=t", "/dlq?topic=t", "/topics", "/messages/5"]
SETTLE_BODY = {"id": 1, "topic": "t"}


@pytest.mark.parametrize("path", READS)
async def test_tokens_are_needed(b: Broker, path: str) -> None:
    status, problem, headers = await b.get(path, headers={})
    assert (status, problem["code"], headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    assert b.engine.calls == []


@pytest.mark.parametrize(
    ("scopes", "allowed"), [(["read"], "r"), ("write", "w"), ("read write", "rw"), (["admin"], "rw"), ([], ""), (["other"], "")]
)
async def test_scopes(b: Broker, scopes: Any, allowed: str) -> None:
    headers = bearer(scopes=scopes)
    for path in READS:
        assert (await b.get(path, headers=headers))[0] == (200 if "r" in allowed else 403)
    for path, body in [(path, SETTLE_BODY) for path in ("/ack", "/nack", "/extend")] + [("/poll", {})]:
        assert (await b.post(path, body, headers=headers))[0] == (200 if "r" in allowed else 403)
    for path, body in [("/enqueue", [{"topic": "t"}]), ("/dlq/delete", SETTLE_BODY)]:
        assert (await b.post(path, body, headers=headers))[0] == (200 if "w" in allowed else 403)


async def test_another_namespace_does_not_exist(b: Broker) -> None:
    headers = bearer(allowed_namespaces=["mine"])
    mine, other = {"id": 1, "topic": "t", "namespace": "mine"}, {"id": 1, "topic": "t"}
    for path in ("/ack", "/nack", "/extend", "/dlq/delete"):
        assert (await b.post(path, mine, headers=headers))[0] == 200
        assert (await b.post(path, other, headers=headers))[0] == 404
        b.engine.calls.clear()
        status, problem, _ = await b.post(path, [mine, other], headers=headers)
        assert (status, problem["code"], problem["item"]) == (404, "not-found", 1)
    assert (await b.post("/enqueue", [{"topic": "t", "namespace": "mine"}, {"topic": "t"}], headers=headers))[0] == 404
    assert (await b.post("/poll", {"topics": ["t"], "limit": 1}, headers=headers))[0] == 404
    settle = [{"id": 1, "topic": "t", "kind": "ack"}]
    assert (await b.post("/poll", {"namespace": "mine", "settle": settle}, headers=headers))[0] == 404
    for path in ("/dequeue?topic=t", "/dlq?topic=t", "/topics?namespace=default"):
        assert (await b.get(path, headers=headers))[0] == 404
    assert b.engine.calls == []
    assert STATUS.namespace == "default"
    assert (await b.get("/messages/5", headers=headers))[0] == 404


async def test_quota() -> None:
    async with broker(quotas={"default": 3}) as b:
        assert (await b.post("/enqueue", [{"topic": "t"}] * 2))[0] == 200
        status, problem, headers = await b.post("/enqueue", [{"topic": "t"}] * 2)
        assert (status, problem["code"]) == (429, "quota-exceeded")
        assert 1 <= int(headers["retry-after"]) <= 60
        assert len(b.engine.calls) == 1
        assert (await b.post("/enqueue", [{"topic": "t"}]))[0] == 200  # the refused request counted nothing
        assert (await b.post("/enqueue", [{"topic": "t", "namespace": "free"}] * 9))[0] == 200


async def test_the_same_request_again_is_charged_once() -> None:
    """Also when the first answer was an error: then nobody knows whether it happened, and the same key is how to find
    out.
    """
    async with broker(quotas={"default": 5}) as b:
        headers = bearer() | {"Idempotency-Key": "first"}
        b.engine.fails = errors.Unavailable()
        assert (await b.post("/enqueue", [{"topic": "t"}] * 5, headers=headers))[0] == 503
        b.engine.fails = None
        for _ in range(3):
            assert (await b.post("/enqueue", [{"topic": "t"}] * 5, headers=headers))[0] == 200
        assert (await b.post("/enqueue", [{"topic": "u"}] * 5, headers=headers))[0] == 429
        assert (await b.post("/enqueue", [{"topic": "t"}] * 5, headers=bearer()))[0] == 429
