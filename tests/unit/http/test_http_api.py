"""Every endpoint's success, in JSON and msgpack, through a real server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from http_fake import DEAD, DELIVERY, Broker, bearer, broker

from mqueue import wire
from mqueue.broker.http import convert
from mqueue.message import Extend, NewMessage, ResultLook, Settle, TopicName

MSGPACK = {"Content-Type": "application/msgpack"}


@pytest.fixture
async def b() -> AsyncIterator[Broker]:
    async with broker() as running:
        yield running


async def test_enqueue(b: Broker) -> None:
    item = {
        "namespace": "shop",
        "topic": "leads",
        "priority": -1,
        "payload": "eyJuYW1lIjoiSm9obiBEb2UifQ==",
        "metadata": {"trace": "a"},
        "deliver_after": "2025-12-25T12:00:00.000001+02:00",
        "ttl": 60,
        "idempotency_key": "k",
        "max_retries": 0,
        "lease": 30,
    }
    status, ids, headers = await b.post("/enqueue", [item, {"topic": "t", "delay": 1.5}])
    assert (status, ids, headers["content-type"]) == (200, [2**62, 2**62 + 1], "application/json")
    assert b.engine.calls == [
        (
            "enqueue",
            [
                NewMessage(
                    namespace="shop",
                    topic="leads",
                    payload=b'{"name":"John Doe"}',
                    priority=-1,
                    metadata=b'{"trace":"a"}',
                    deliver_after_us=1_766_656_800_000_001,
                    ttl=60.0,
                    idempotency_key="k",
                    max_retries=0,
                    lease=30.0,
                ),
                NewMessage("default", "t", b"", delay=1.5),
            ],
        )
    ]


async def test_enqueue_msgpack(b: Broker) -> None:
    item = {
        "topic": "t",
        "payload": b"\x00\xff",
        "deliver_after": datetime(1970, 1, 1, tzinfo=UTC),
        "metadata": {"a": [None, True, 1.5]},
    }
    status, body, headers = await b.ask("POST", "/enqueue", data=msgspec.msgpack.encode([item]), headers=bearer() | MSGPACK)
    assert (status, headers["content-type"]) == (200, "application/msgpack")
    assert msgspec.msgpack.decode(body) == [2**62]
    assert b.engine.calls[0][1] == [NewMessage("default", "t", b"\x00\xff", metadata=b'{"a":[null,true,1.5]}', deliver_after_us=0)]


async def test_dequeue(b: Broker) -> None:
    status, messages, _ = await b.get("/dequeue?namespace=default&topic=leads&limit=10")
    assert status == 200
    assert messages == [
        {
            "id": 123456789012345678,
            "namespace": "default",
            "topic": "leads",
            "priority": 1,
            "payload": "eyJuYW1lIjoiSm9obiBEb2UifQ==",
            "metadata": {"trace": "x", "n": [1, 2.5]},
            "deliver_after": "2025-12-25T10:00:00.000001Z",
            "created_at": "2025-12-25T09:59:59.999999Z",
            "attempt": 1,
            "max_retries": 3,
            "receipt": "7-2a",
            "lease_expires_at": "2025-12-25T10:00:30Z",
            "lease": 30.0,
        }
    ]
    assert b.engine.calls == [("fetch", ("default", ["leads"], 10, 0.0, None))]


async def test_dequeue_several_topics_and_options(b: Broker) -> None:
    b.engine.deliveries = []
    status, messages, _ = await b.get("/dequeue?namespace=n&topic=a&topic=b&topic=a&limit=1000&wait=0.5&lease=2.5")
    assert (status, messages) == (200, [])
    assert b.engine.calls == [("fetch", ("n", ["a", "b"], 1000, 0.5, 2.5))]


async def test_dequeue_msgpack(b: Broker) -> None:
    _, body, headers = await b.get("/dequeue?topic=leads", headers=bearer() | {"Accept": "application/msgpack"})
    assert headers["content-type"] == "application/msgpack"
    [message] = msgspec.msgpack.decode(body, type=list[wire.Message])
    assert message.payload == DELIVERY.payload
    assert message.metadata == {"trace": "x", "n": [1, 2.5]}
    assert convert.to_us(message.deliver_after) == DELIVERY.deliver_after_us
    assert convert.to_us(message.created_at) == DELIVERY.created_at_us


@pytest.mark.parametrize("accept", ["application/json", "text/html, application/json;q=0.9"])
async def test_accept_json_wins_over_the_request(b: Broker, accept: str) -> None:
    body = msgspec.msgpack.encode([{"topic": "t"}])
    status, ids, headers = await b.ask("POST", "/enqueue", data=body, headers=bearer() | MSGPACK | {"Accept": accept})
    assert (status, ids, headers["content-type"]) == (200, [2**62], "application/json")


@pytest.mark.parametrize("verdict", ["ok", "gone"])
@pytest.mark.parametrize("path", ["/ack", "/nack", "/extend"])
async def test_one_settle(b: Broker, path: str, verdict: str) -> None:
    b.engine.verdict = verdict
    status, answer, _ = await b.post(path, {"id": 123456789012345678, "namespace": "default", "topic": "leads"})
    assert (status, answer) == (200, {"id": 123456789012345678, "status": verdict})


@pytest.mark.parametrize("path", ["/ack", "/nack", "/extend"])
async def test_several_settles(b: Broker, path: str) -> None:
    b.engine.verdict = "stale"
    status, answer, _ = await b.post(path, [{"id": 1, "topic": "t"}, {"id": 2, "topic": "t"}])
    assert (status, answer) == (200, [{"id": 1, "status": "stale"}, {"id": 2, "status": "stale"}])
    assert (await b.post(path, []))[:2] == (200, [])
    assert len(b.engine.calls) == 1


async def test_what_settles_carry(b: Broker) -> None:
    await b.post("/nack", {"id": 1, "topic": "t", "receipt": "r", "error": "a\x00" + "é" * 4096, "retry_after": 3})
    await b.post("/ack", {"id": 2, "topic": "t", "namespace": "n"})
    await b.post("/extend", {"id": 3, "topic": "t", "receipt": "r", "lease": 9})
    error = "a\N{REPLACEMENT CHARACTER}" + "é" * 2046  # 4 KiB, not ending within a letter
    assert b.engine.calls == [
        ("settle", [Settle(1, "default", "t", "nack", "r", error, 3.0)]),
        ("settle", [Settle(2, "n", "t", "ack")]),
        ("extend", [Extend(3, "default", "t", "r", 9.0)]),
    ]


async def test_poll(b: Broker) -> None:
    settle = [{"id": n, "topic": "t", "kind": kind} for n, kind in enumerate(["ack", "nack", "release", "bury"])]
    status, answer, _ = await b.post("/poll", {"topics": ["a", "leads"], "limit": 3, "wait": 1, "lease": 5, "settle": settle})
    assert status == 200
    assert answer["verdicts"] == [{"id": n, "status": "ok"} for n in range(4)]
    assert [message["id"] for message in answer["messages"]] == [DELIVERY.id]
    assert [name for name, _ in b.engine.calls] == ["settle", "fetch"]
    assert b.engine.calls[1][1] == ("default", ["a", "leads"], 3, 1.0, 5.0)
    assert [s.kind for s in b.engine.calls[0][1]] == ["ack", "nack", "release", "bury"]


async def test_poll_msgpack_only_settles(b: Broker) -> None:
    body = msgspec.msgpack.encode({"settle": [{"id": 1, "topic": "t", "kind": "ack"}]})
    _, answer, _ = await b.ask("POST", "/poll", data=body, headers=bearer() | MSGPACK | {"Accept": "*/*"})
    assert msgspec.msgpack.decode(answer, type=wire.Polled) == wire.Polled([wire.Verdict(1, "ok")], [])
    assert [name for name, _ in b.engine.calls] == ["settle"]


async def test_a_poll_may_be_ended_while_it_still_settles(b: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    settling, go_on = asyncio.Event(), asyncio.Event()
    settle = b.engine.settle

    async def slow(settles: Any) -> Any:
        settling.set()
        await go_on.wait()
        return await settle(settles)

    monkeypatch.setattr(b.engine, "settle", slow)
    ack = {"id": 1, "topic": "t", "kind": "ack"}
    b.engine.waits = True
    poll = asyncio.create_task(b.post("/poll", {"topics": ["a"], "limit": 1, "wait": 60, "name": "n", "settle": [ack]}))
    await settling.wait()
    assert (await b.post("/poll", {"end": ["n"]}))[0] == 200
    go_on.set()
    assert (await poll)[1] == {"verdicts": [{"id": 1, "status": "ok"}], "messages": []}
    assert [name for name, _ in b.engine.calls] == ["settle"], "nothing is leased for whoever wants no more"


async def test_a_poll_that_is_refused_ends_no_other(b: Broker) -> None:
    b.engine.waits = True
    poll = asyncio.create_task(b.post("/poll", {"topics": ["a"], "limit": 1, "wait": 60, "name": "n"}))
    await b.engine.waiting.wait()
    refused = {"end": ["n"], "settle": [{"id": 1, "topic": "t", "kind": "cancel"}]}
    assert (await b.post("/poll", refused))[0] == 400
    [named] = b.engine.asks
    assert not named.said
    poll.cancel()


async def test_dead_letters(b: Broker) -> None:
    status, dead, _ = await b.get("/dlq?namespace=default&topic=leads&limit=10&after=4")
    assert status == 200
    assert dead == [
        {
            "id": 9,
            "namespace": "default",
            "topic": "leads",
            "priority": 0,
            "payload": "eA==",
            "attempts": 4,
            "created_at": "1970-01-01T00:00:01Z",
            "died_at": "1970-01-01T00:00:02Z",
            "error": DEAD.error,
        }
    ]
    assert b.engine.calls == [("dead_letters", ("default", "leads", 10, 4))]


async def test_delete_dead(b: Broker) -> None:
    assert (await b.post("/dlq/delete", {"id": 9, "topic": "a"}))[:2] == (200, {"id": 9, "status": "ok"})
    assert (await b.post("/dlq/delete", {"id": 8, "topic": "a"}))[:2] == (200, {"id": 8, "status": "gone"})
    b.engine.calls.clear()
    several = [{"id": 1, "topic": "a"}, {"id": 2, "topic": "b"}, {"id": 4, "topic": "a"}]
    status, verdicts, _ = await b.post("/dlq/delete", several)
    assert (status, [v["status"] for v in verdicts]) == (200, ["ok", "gone", "gone"])
    assert b.engine.calls == [("delete_dead", ("default", "a", [1, 4])), ("delete_dead", ("default", "b", [2]))]


async def test_topics(b: Broker) -> None:
    status, topics, _ = await b.get("/topics")
    counts = {"ready": 1, "delayed": 2, "leased": 3, "waiting": 4, "dead": 5, "counters": {"enqueued": 9}}
    assert (status, topics) == (200, [{"namespace": "default", "topic": "leads", "shard": 0} | counts])
    await b.get("/topics?namespace=n")
    await b.get("/topics", headers=bearer(allowed_namespaces=["z", "a"]))
    assert [what for _, what in b.engine.calls] == [None, ["n"], ["a", "z"]]


async def test_message(b: Broker) -> None:
    status, message, _ = await b.get("/messages/5")
    assert (status, message["id"], message["state"], message["payload"]) == (200, 5, "ready", "eA==")
    assert b.engine.calls == [("message", 5)]


async def test_a_result(b: Broker) -> None:
    assert (await b.get("/messages/5/result"))[:2] == (200, {"id": 5, "value": "WzFd"})
    await b.get("/messages/5/result?topic=t&namespace=n&wait=2.5", headers=bearer(allowed_namespaces=["n"]))
    assert [what for _, what in b.engine.calls] == [(5, None, 0.0, None), (5, TopicName("n", "t"), 2.5, frozenset({"n"}))]
    for look, status, code, words in (
        (ResultLook("leased"), 404, "pending", "the message is leased"),
        (ResultLook("dead", error="E" * 4000), 410, "dead-letter", "E" * 4000),
        (None, 404, "not-found", "no message 5"),
    ):
        b.engine.look = look
        got = await b.get("/messages/5/result")
        assert (got[0], got[1]["code"]) == (status, code) and words in got[1]["detail"]
    calls = len(b.engine.calls)
    for path in ("/messages/x/result", f"/messages/{2**63}/result"):
        assert (await b.get(path))[0] == 404
    assert (await b.get("/messages/5/result?topic=t&namespace=other", headers=bearer(allowed_namespaces=["n"])))[0] == 404
    assert len(b.engine.calls) == calls


async def test_a_wait_for_a_result_ends_when_the_broker_stops(b: Broker) -> None:
    b.engine.waits = True
    waiting = asyncio.create_task(b.get("/messages/5/result?wait=30"))
    async with asyncio.timeout(10):
        await b.engine.waiting.wait()
        await b.server.stop(grace=2)
        status, body, headers = await waiting
    assert (status, body["code"], headers["retry-after"]) == (503, "unavailable", "1")


async def test_an_ack_brings_a_result(b: Broker) -> None:
    await b.post("/ack", {"id": 1, "topic": "t", "result": "eA==", "result_ttl": 5})
    await b.post("/poll", {"settle": [{"id": 2, "topic": "t", "kind": "ack", "result": ""}]})
    assert [(s.result, s.result_ttl) for _, [s] in b.engine.calls] == [(b"x", 5), (b"", 3600)]
    b.engine.calls.clear()
    for path, body, field in (
        ("/nack", {"id": 1, "topic": "t", "result": "eA=="}, "result"),
        ("/poll", {"settle": [{"id": 2, "topic": "t", "kind": "bury", "result": "eA=="}]}, "result"),
        ("/ack", {"id": 1, "topic": "t", "result": "eA==", "result_ttl": 0}, "result_ttl"),
        ("/ack", {"id": 1, "topic": "t", "result": "?"}, "result"),
    ):
        status, problem, _ = await b.post(path, body)
        assert (status, problem["code"], problem["field"]) == (400, "invalid", field)
    assert b.engine.calls == []


WORKER = {
    "name": "w", "host": "h", "pid": 1, "version": "1", "topics": ["a/t", "b/t"], "tasks": ["x"], "slots": 2, "busy": 2, "state": "running",
    "started_at": "2030-01-01T00:00:00Z", "counts": {"ack": 3}, "running": [
        {"id": 5, "namespace": "a", "topic": "t", "task": "x", "attempt": 1, "seconds": 2.5, "progress": 0.5, "note": "n"},
        {"id": 6, "namespace": "b", "topic": "t", "task": "x", "attempt": 1, "seconds": 2.5},
    ],
}  # fmt: skip


async def test_workers_tell_and_are_shown_as_far_as_the_token_may_see(b: Broker) -> None:
    assert (await b.post("/workers", WORKER))[:2] == (200, b"OK")
    assert (await b.post("/workers", WORKER | {"state": "stopped"}))[0] == 200
    (_, (report, stopped)), (_, (_, again)) = b.engine.calls
    assert (report.key, report.progressing, stopped, again) == (("w", ("a", "b")), (5,), False, True)
    b.engine.told = [(report.text, 1_000_000)]
    _, shown, _ = await b.get("/workers")
    assert shown == [WORKER | {"seen_at": "1970-01-01T00:00:01Z"}]
    _, [narrow], _ = await b.get("/workers", headers=bearer(allowed_namespaces=["b"]))
    assert (narrow["topics"], [run["id"] for run in narrow["running"]], narrow["tasks"]) == (["b/t"], [6], [])
    await b.get("/workers?namespace=a")
    assert [what for name, what in b.engine.calls if name == "workers"] == [None, ["b"], ["a"]]
    assert (await b.get("/workers?namespace=a", headers=bearer(allowed_namespaces=["b"])))[0] == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "a b"}, 400), ({"topics": []}, 400), ({"topics": ["t"]}, 400), ({"topics": ["a/t\n"]}, 400), ({"host": "h\0"}, 400),
        ({"state": "asleep"}, 400), ({"seen_at": "2030-01-01T00:00:00Z"}, 400), ({"running": [WORKER["running"][0] | {"progress": 2}]}, 400),  # type: ignore[index]
        ({"counts": {"ack": 2**70}}, 400), ({"running": [WORKER["running"][0] | {"attempt": 2**70}]}, 400),  # type: ignore[index]
        ({"running": WORKER["running"] * 60}, 400), ({"running": [WORKER["running"][0] | {"note": "\ud800"}]}, 400),  # type: ignore[index, operator]
    ],
)  # fmt: skip
async def test_a_workers_word_is_checked(b: Broker, change: dict[str, Any], status: int) -> None:
    assert (await b.post("/workers", WORKER | change))[0] == status
    assert (await b.post("/workers", WORKER, headers=bearer(allowed_namespaces=["a"])))[0] == 404
    assert b.engine.calls == []


async def test_health_needs_no_token(b: Broker) -> None:
    status, body, headers = await b.get("/health", headers={})
    assert (status, body, headers["content-type"]) == (200, b"OK", "text/plain; charset=utf-8")
    status, body, headers = await b.ask("HEAD", "/health", headers={})
    assert (status, body, headers["content-length"]) == (200, b"", "2")


async def test_ready_names_every_part(b: Broker) -> None:
    status, body, _ = await b.get("/ready", headers={})
    parts = {"mode": "hot", "redis": "ok", "postgres": "ok", "wal": "ok"}
    assert (status, body) == (200, {"status": "ready", "shards": [{"shard": 0} | parts, {"shard": 1} | parts]})
    b.engine.health = {0: True, 1: False}
    status, body, headers = await b.get("/ready", headers={})
    assert (status, body["status"], headers["retry-after"]) == (503, "not-ready", "1")
    assert body["shards"][1] == {"shard": 1} | parts | {"wal": "full"}


async def test_an_enqueue_says_how_durable_it_is(b: Broker) -> None:
    for asked, told in ((None, "wal"), ("wal", "wal"), ("postgres", "postgres")):
        headers = bearer() | ({"Mqueue-Durability": asked} if asked else {})
        status, _, replied = await b.ask("POST", "/enqueue", data=b'[{"topic": "t"}]', headers=headers)
        assert (status, replied["mqueue-durability"]) == (200, told)
    status, body, _ = await b.ask("POST", "/enqueue", data=b'[{"topic": "t"}]', headers=bearer() | {"Mqueue-Durability": "hope"})
    assert (status, body["field"]) == (400, "Mqueue-Durability")


@pytest.mark.parametrize("spelling", ["Authorization", "Authorisation", "authorisation"])
async def test_both_spellings(b: Broker, spelling: str) -> None:
    headers = {spelling: bearer()["Authorization"]}
    assert (await b.get("/dequeue?topic=t", headers=headers))[0] == 200


async def test_requests_are_counted_by_route_and_status(b: Broker) -> None:
    await b.post("/enqueue", [{"topic": "t"}])
    await b.post("/enqueue", [{"topic": "t"}])
    await b.get("/messages/5")
    await b.get("/nowhere/at/all")
    text = b.metrics.render().decode()
    for line in (
        'mqueue_http_requests_total{route="/enqueue",status="200"} 2.0',
        'mqueue_http_requests_total{route="/messages",status="200"} 1.0',
        'mqueue_http_requests_total{route="other",status="404"} 1.0',
        'mqueue_http_seconds_count{route="/enqueue"} 2.0',
    ):
        assert line in text
    assert "/nowhere" not in text
