"""Schedules over HTTP: raw, and by both clients; what is refused; who may do it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from http_fake import Broker, bearer, broker, token

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.errors import Invalid, NotFound

CRON = {"topic": "reports", "cron": "0 4 * * *", "timezone": "Europe/Berlin", "payload": "e30="}


@pytest.fixture
async def b() -> AsyncIterator[Broker]:
    async with broker() as b:
        yield b


async def test_a_schedule_is_put_and_read(b: Broker) -> None:
    status, made, _ = await b.ask("PUT", "/schedules/nightly", CRON)
    shown = {
        "name": "nightly", "namespace": "default", "topic": "reports", "cron": "0 4 * * *", "timezone": "Europe/Berlin", "catch_up": "one",
        "priority": 0, "paused": False, "next_at": "2025-12-26T03:00:00Z", "payload": "e30=",
    }  # fmt: skip
    assert (status, made) == (200, shown)
    assert (await b.get("/schedules/nightly"))[1] == shown
    every = {"topic": "t", "every": 1.5, "catch_up": "all", "priority": -3, "metadata": {"a": 1}, "ttl": 60, "max_retries": 0, "lease": 5}
    made = (await b.ask("PUT", "/schedules/beat", every))[1]
    assert {name: made[name] for name in every} == every
    listed = (await b.get("/schedules"))[1]
    assert [(s["name"], "payload" in s) for s in listed] == [("beat", False), ("nightly", False)]
    await b.get("/schedules?namespace=n&after=x&limit=7")
    assert b.engine.calls[-1] == ("schedules", ("n", "x", 7))


async def test_what_is_done_with_one(b: Broker) -> None:
    await b.ask("PUT", "/schedules/nightly", CRON)
    assert (await b.post("/schedules/nightly/pause"))[1]["paused"] is True
    assert (await b.ask("PUT", "/schedules/nightly", CRON | {"priority": 5}))[1]["paused"] is True, "an edit leaves that as it is"
    b.engine.schedules.now_us += 86_400_000_000
    resumed = (await b.post("/schedules/nightly/resume"))[1]
    assert (resumed["paused"], resumed["next_at"]) == (False, "2025-12-27T03:00:00Z")
    assert (await b.post("/schedules/nightly/run"))[1] == {"id": 2**62}
    assert (await b.ask("DELETE", "/schedules/nightly"))[1] == {"deleted": True}
    assert (await b.ask("DELETE", "/schedules/nightly"))[1] == {"deleted": False}
    for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run")):
        assert (await b.ask(method, f"/schedules/nightly{path}"))[0] == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": None}, "every"),
        ({"every": 5}, "cron"),
        ({"cron": "* * * *"}, "cron"),
        ({"cron": "0 25 * * *"}, "cron"),
        ({"cron": "0 0 29 2 MON#5"}, None),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../zone"}, "timezone"),
        ({"catch_up": "some"}, "catch_up"),
        ({"cron": None, "every": 0.5}, "every"),
        ({"topic": "a b"}, "topic"),
        ({"topic": "a\n"}, "topic"),
        ({"payload": "e30=" * 30_000}, "payload"),
        ({"metadata": {"tick": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 4_050}}, "metadata"),
        ({"metadata": {"a": "\x00"}}, "metadata"),
        ({"lease": 0}, "lease"),
        ({"delay": 5}, "delay"),
    ],
)
async def test_what_is_wrong_is_refused_and_named(b: Broker, change: dict[str, Any], field: str | None) -> None:
    status, problem, _ = await b.ask("PUT", "/schedules/nightly", {k: v for k, v in (CRON | change).items() if v is not None})
    if field is None:
        assert status == 200, "it comes, though not within years"
        return
    assert (status, problem["code"], problem["field"]) == (400, "invalid", field)
    assert b.engine.schedules.kept == {}


async def test_a_time_that_never_comes_is_refused(b: Broker) -> None:
    status, problem, _ = await b.ask("PUT", "/schedules/nightly", CRON | {"cron": "0 0 */30 2 MON#5"})
    assert (status, problem["field"]) == (400, "cron")


@pytest.mark.parametrize("name", ["a%20b", "a%2Fb", "x" * 129, "a%0A"])
async def test_wrong_names(b: Broker, name: str) -> None:
    assert (await b.ask("PUT", f"/schedules/{name}", CRON))[0] in (400, 404)
    assert b.engine.schedules.kept == {}


async def test_other_methods(b: Broker) -> None:
    status, problem, headers = await b.post("/schedules/nightly")
    assert (status, problem["code"], headers["allow"]) == (405, "method-not-allowed", "GET, PUT, DELETE")
    assert (await b.get("/schedules/nightly/run"))[0] == 405
    assert (await b.get("/schedules/nightly/other"))[0] == 404


async def test_reading_and_writing_need_their_scopes(b: Broker) -> None:
    await b.ask("PUT", "/schedules/nightly", CRON)
    for scope, reads, writes in (("read", 200, 403), ("write", 403, 200)):
        headers = bearer(scopes=[scope])
        assert (await b.get("/schedules", headers=headers))[0] == (await b.get("/schedules/nightly", headers=headers))[0] == reads
        for verb in ("pause", "resume", "run"):
            assert (await b.post(f"/schedules/nightly/{verb}", headers=headers))[0] == writes
        assert (await b.ask("PUT", "/schedules/nightly", CRON, headers=headers))[0] == writes
    assert (await b.ask("DELETE", "/schedules/nightly", headers=bearer(scopes=["read"])))[0] == 403
    assert (await b.get("/schedules", headers={}))[0] == 401


async def test_another_namespace_does_not_exist(b: Broker) -> None:
    headers = bearer(allowed_namespaces=["mine"])
    await b.ask("PUT", "/schedules/nightly", CRON)
    assert (await b.ask("PUT", "/schedules/nightly", CRON | {"namespace": "mine"}, headers=headers))[0] == 200
    b.engine.calls.clear()
    assert (await b.ask("PUT", "/schedules/nightly", CRON, headers=headers))[0] == 404
    assert (await b.ask("DELETE", "/schedules/nightly", headers=headers))[0] == 404
    for path in ("/schedules", "/schedules/nightly"):
        assert (await b.get(path, headers=headers))[0] == 404
    for verb in ("pause", "resume", "run"):
        assert (await b.post(f"/schedules/nightly/{verb}", headers=headers))[0] == 404
    assert b.engine.calls == []


async def test_a_run_counts_against_the_quota() -> None:
    async with broker(quotas={"default": 1}) as b:
        await b.ask("PUT", "/schedules/nightly", CRON)
        assert (await b.post("/schedules/nightly/run"))[0] == 200
        assert (await b.post("/schedules/nightly/run"))[0] == 429


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_the_clients_do_all_of_it(b: Broker, kind: type) -> None:
    client = kind(b.server.url, token())

    async def ask(method: str, *args: Any, **options: Any) -> Any:
        call = getattr(client, method)
        return await call(*args, **options) if kind is AsyncClient else await asyncio.to_thread(call, *args, **options)

    item = wire.ScheduleItem(topic="t", namespace="n", every=90.0, payload=b"\x00x", metadata={"a": 1})
    made = await ask("put_schedule", "a.b-c_d", item)
    assert (made.name, made.every, made.payload, made.metadata) == ("a.b-c_d", 90.0, b"\x00x", {"a": 1})
    assert await ask("schedule", "a.b-c_d", namespace="n") == made
    assert await ask("schedule", "a.b-c_d") is None
    assert [s.name for s in await ask("schedules", "n")] == ["a.b-c_d"]
    assert (await ask("pause_schedule", "a.b-c_d", namespace="n")).paused
    assert not (await ask("resume_schedule", "a.b-c_d", namespace="n")).paused
    assert await ask("run_schedule", "a.b-c_d", namespace="n") == 2**62
    assert b.engine.calls[-1][1] is not None, "with a key, so that it may be sent again"
    assert await ask("delete_schedule", "a.b-c_d", namespace="n")
    with pytest.raises(NotFound):
        await ask("pause_schedule", "a.b-c_d", namespace="n")
    with pytest.raises(Invalid, match="time zone"):
        await ask("put_schedule", "x", wire.ScheduleItem(topic="t", cron="* * * * *", timezone="Nowhere"))
    closed = client.close()
    if kind is AsyncClient:
        await closed


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_more_than_a_page_is_listed(b: Broker, kind: type) -> None:
    await b.ask("PUT", "/schedules/s", CRON)
    [made] = b.engine.schedules.kept.values()
    for n in range(1_100):
        b.engine.schedules.kept["n", f"s{n:04}"] = made._replace(namespace="n", name=f"s{n:04}")
    client = kind(b.server.url, token())
    found = await client.schedules("n") if kind is AsyncClient else await asyncio.to_thread(client.schedules, "n")
    assert [s.name for s in found] == [f"s{n:04}" for n in range(1_100)]
    closed = client.close()
    if kind is AsyncClient:
        await closed
