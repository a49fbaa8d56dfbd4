"""Cancel over HTTP: a message by its id, and the call by which workers hear of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from http_fake import STATUS, Broker, bearer, broker

CANCELLED = "/cancelled"


@pytest.fixture
async def b() -> AsyncIterator[Broker]:
    async with broker() as running:
        yield running


async def test_a_message_is_cancelled_by_its_id(b: Broker) -> None:
    status, answer, _ = await b.post("/messages/123456789012345678/cancel")
    assert (status, answer) == (200, {"id": 123456789012345678, "status": "cancelling"})
    assert b.engine.calls == [("cancel", (123456789012345678, None))]


async def test_only_what_the_token_may_see_is_cancelled(b: Broker) -> None:
    """The engine knows in which namespace it is."""
    await b.post("/messages/5/cancel", headers=bearer(allowed_namespaces=["shop"]))
    assert b.engine.calls == [("cancel", (5, frozenset({"shop"})))]


async def test_whoever_may_only_write_may_not_cancel(b: Broker) -> None:
    headers = bearer(scopes=["write"])
    assert [(await b.post(path, headers=headers))[0] for path in ("/messages/5/cancel", CANCELLED)] == [403, 403]
    assert b.engine.calls == []


async def test_it_shows_what_is_to_be_cancelled(b: Broker) -> None:
    b.engine.status = replace(STATUS, state="leased", cancelling=True)
    assert (await b.get("/messages/5"))[1]["cancelling"] is True
    b.engine.status = STATUS
    assert "cancelling" not in (await b.get("/messages/5"))[1]


@pytest.mark.parametrize("id", ["x", "-1", "9223372036854775808", "1.5"])
async def test_what_is_no_id_is_not_found(b: Broker, id: str) -> None:
    status, problem, _ = await b.post(f"/messages/{id}/cancel")
    assert (status, problem["code"], b.engine.calls) == (404, "not-found", [])


async def test_a_worker_hears_which_running_messages_are_cancelled(b: Broker) -> None:
    status, answer, _ = await b.post(CANCELLED, {"namespaces": ["default", "shop"], "since": "7-1", "wait": 0.5})
    assert (status, answer) == (200, {"since": "7-2", "ids": [2**62]})
    assert b.engine.calls == [("wait_cancelled", (["default", "shop"], "7-1", 0.5))]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "namespaces"),
        ({"namespaces": []}, "namespaces"),
        ({"namespaces": ["no slash/"]}, "namespaces"),
        ({"namespaces": ["n\n"]}, "namespace"),
        ({"namespaces": ["n"] * 65}, "namespaces"),
        ({"namespaces": ["n"], "wait": 61}, "wait"),
        ({"namespaces": ["n"], "since": "x" * 5000}, "since"),
        ({"namespaces": ["n"], "more": 1}, "more"),
    ],
)
async def test_what_is_wrong_with_it_is_said(b: Broker, body: Any, says: str) -> None:
    status, problem, _ = await b.post(CANCELLED, body)
    assert (status, problem["code"]) == (400, "invalid")
    assert says in problem["detail"]
    assert b.engine.calls == []


async def test_another_namespace_is_not_heard_of(b: Broker) -> None:
    status, problem, _ = await b.post(CANCELLED, {"namespaces": ["default", "shop"]}, headers=bearer(allowed_namespaces=["shop"]))
    assert (status, problem["code"], b.engine.calls) == (404, "not-found", [])


async def test_a_broker_that_stops_sends_those_who_wait_away(b: Broker) -> None:
    b.engine.waits = True
    waiting = asyncio.create_task(b.post(CANCELLED, {"namespaces": ["n"], "wait": 60}))
    await b.engine.waiting.wait()
    stopping = asyncio.create_task(b.server.stop(grace=5))
    status, problem, _ = await waiting
    assert (status, problem["code"]) == (503, "unavailable")
    await stopping


async def test_a_delivery_ends_as_cancelled_with_its_receipt_only(b: Broker) -> None:
    settle = {"id": 5, "topic": "t", "kind": "cancel"}
    status, problem, _ = await b.post("/poll", {"settle": [settle]})
    assert (status, problem["field"]) == (400, "receipt")
    status, body, _ = await b.ask("POST", "/poll", data=msgspec.json.encode({"settle": [settle | {"receipt": "7-2a"}]}))
    assert (status, body["verdicts"]) == (200, [{"id": 5, "status": "ok"}])
