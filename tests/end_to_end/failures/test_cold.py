"""Redis away: PostgreSQL serves, in strict order, and what it leased and took is known when Redis is back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import KeyReused, MQueueError, Unavailable
from mqueue.torture.stage import Broker, Stage
from tests import fields
from tests.processes.api import Http
from tests.processes.stores import SECRET
from tests.waiting import anything, until

COLD_S = 15.0  # within which the shard serves without Redis, and with it again


@pytest.fixture
async def stage(data_dir: Path) -> AsyncIterator[Stage]:
    async with Stage(data_dir, 1, 2, SECRET, {"MQUEUE_LOG_LEVEL": "info"}) as stage:
        yield stage


@pytest.fixture
async def clients(stage: Stage) -> AsyncIterator[list[AsyncClient]]:
    clients = [AsyncClient(broker.url, stage.token, timeout=10.0) for broker in stage.brokers]
    yield clients
    for client in clients:
        await client.close()


async def go_cold(stage: Stage) -> None:
    for broker in stage.brokers:
        broker.redis.cut()
    await until(lambda: all_cold(stage, 1), "cold", COLD_S)


async def go_hot(stage: Stage) -> None:
    for broker in stage.brokers:
        broker.redis.heal()
    await until(lambda: all_cold(stage, 0), "hot", COLD_S)
    await stage.settled()


async def all_cold(stage: Stage, cold: int) -> bool:
    told = [await stage.metric(broker, "mqueue_cold") for broker in stage.brokers]
    served = [await stage.metric(broker, "mqueue_shard_health") for broker in stage.brokers]
    return told == [cold] * len(stage.brokers) and served == [1] * len(stage.brokers)


async def fetched(client: AsyncClient, topics: list[str], **options: Any) -> list[wire.Message]:
    """A 503 says that it has changed nothing: the same again."""
    return await until(lambda: client.fetch(topics, **options), "a fetch is served", COLD_S, enough=anything, despite=Unavailable)


def item(n: int, priority: int = 0, **options: object) -> wire.EnqueueItem:
    return wire.EnqueueItem(topic="work", payload=b"%d" % n, priority=priority, **options)  # type: ignore[arg-type]


async def test_everything_goes_on_without_redis_and_comes_back(stage: Stage, clients: list[AsyncClient]) -> None:
    a, b = clients
    before = await a.enqueue_many([item(n, n % 3) for n in range(60)])
    assert await durability(stage) == "wal"
    assert await durability(stage, **{"Mqueue-Durability": "postgres"}) == "postgres"
    await go_cold(stage)

    assert await durability(stage) == "postgres"
    during = await b.enqueue_many([item(100 + n, n % 3) for n in range(60)])
    keys = sorted((n % 3, i) for ids in (before, during) for n, i in enumerate(ids))
    got = [*await fetched(a, ["work"], limit=50), *await fetched(b, ["work"], limit=30)]
    assert [m.id for m in got] == [id for _, id in keys[:80]], "strict order, across what came before and since"
    assert len({m.receipt for m in got}) == 2

    kept = wire.SettleItem(id=got[39].id, topic="work", receipt=got[39].receipt, result=b"kept")
    assert {v.status for v in await b.ack([*got[:39], kept])} == {"ok"}
    assert await a.result(kept.id, topic="work", wait=10) == b"kept"
    assert {v.status for v in await a.ack(got[:40])} == {"gone"}, "a repeated ack is harmless"
    assert {v.status for v in await a.extend(got[40:50], lease=60)} == {"ok"}
    assert [v.status for v in await a.nack([got[50]], error="on purpose", retry_after=0)] == ["ok"]
    assert [v.status for v in await a.ack([got[50]])] == ["stale"]
    [again] = await fetched(b, ["work"], limit=1)
    assert (again.id, again.attempt) == (got[50].id, 2)

    [_, stats] = await a.topics()
    assert (stats.leased, stats.waiting) == (40, 40)
    status = await b.message(again.id)
    assert status is not None and status.state == "leased"

    await go_hot(stage)
    assert await b.result(kept.id, topic="work") == b"kept"
    assert {v.status for v in await b.ack(got[40:50])} == {"ok"}, "a lease of the cold path is known"
    assert {v.status for v in await b.ack([again, *got[51:80]])} == {"ok"}
    rest = await fetched(a, ["work"], limit=100)
    assert [m.id for m in rest] == [id for _, id in keys[80:]]
    assert {v.status for v in await a.ack(rest)} == {"ok"}
    assert await fetched(b, ["work"]) == []
    assert await stage.drift() == {}

    async def counted() -> bool:
        return (await a.topics())[1].counters["acked"] == 120

    await until(counted, "all acks are flushed", COLD_S)


async def test_every_field_is_as_it_went_without_redis_and_with_it_again(stage: Stage, clients: list[AsyncClient]) -> None:
    a, b = clients
    before, during = (
        [msgspec.structs.replace(item, topic=f"{when}-{way}") for way, item in enumerate(fields.ways())] for when in ("before", "during")
    )
    items = {item.topic: item for item in (*before, *during)}
    await a.enqueue_many(before)
    await go_cold(stage)
    await b.enqueue_many(during)

    async def come(client: AsyncClient, attempt: int, but: Iterable[str]) -> list[wire.Message]:
        messages = [message for i in items.values() for message in await fetched(client, [i.topic], namespace=i.namespace, wait=1)]
        assert [(message.topic, message.attempt) for message in messages] == [(topic, attempt) for topic in items]
        for message in messages:
            status = await client.message(message.id)
            assert status is not None
            assert [fields.differences(items[message.topic], shown, but) for shown in (message, status)] == [{}, {}]
        return messages

    assert {v.status for v in await a.nack(await come(b, 1, ()), retry_after=0)} == {"ok"}
    held = await come(a, 2, fields.AFTER_NACK)
    await go_hot(stage)
    assert {v.status for v in await a.nack(held)} == {"ok"}
    for topic, item in items.items():
        [dead] = await b.dead_letters(topic, namespace=item.namespace)
        assert fields.differences(item, dead) == {}


async def test_leases_end_and_the_dead_are_buried_without_redis(stage: Stage, clients: list[AsyncClient]) -> None:
    a, b = clients
    await go_cold(stage)
    [once, twice] = await a.enqueue_many([item(1, max_retries=0), item(2, max_retries=1)])
    got = await fetched(a, ["work"], lease=0.5)
    assert [m.id for m in got] == [once, twice]
    began = time.monotonic()
    [again] = await fetched(b, ["work"], wait=20, lease=30)
    assert (again.id, again.attempt) == (twice, 2)
    assert time.monotonic() - began < 10.0, "redelivered soon after its lease's end"
    assert [v.status for v in await a.ack(got)] == ["stale", "stale"]
    assert [v.status for v in await a.nack([again], error="it cannot be done")] == ["ok"]
    dead = await b.dead_letters("work")
    assert [(d.id, d.error) for d in dead] == [
        (once, "the lease expired: the worker died, hung, or took longer than its lease"),
        (twice, "it cannot be done"),
    ]
    assert [v.status for v in await a.delete_dead("work", [once])] == ["ok"]
    await go_hot(stage)
    assert [d.id for d in await b.dead_letters("work")] == [twice]
    assert await stage.drift() == {}


async def test_delays_and_ttls_hold_without_redis(stage: Stage, clients: list[AsyncClient]) -> None:
    a, _ = clients
    await go_cold(stage)
    [later, never] = await a.enqueue_many([item(1, delay=1.0), item(2, ttl=0.3, delay=0.6)])
    assert await fetched(a, ["work"]) == []
    began = time.monotonic()
    [got] = await fetched(a, ["work"], wait=20)
    assert got.id == later
    assert 0.5 < time.monotonic() - began < 10.0
    assert await a.message(never) is None


async def test_keys_hold_across_the_change(stage: Stage, clients: list[AsyncClient]) -> None:
    a, b = clients
    [first] = await a.enqueue_many([item(1, idempotency_key="one")])
    await until(lambda: flushed(stage), "flushed", COLD_S)
    await go_cold(stage)
    assert await b.enqueue_many([item(1, idempotency_key="one")]) == [first]
    with pytest.raises(KeyReused):
        await b.enqueue_many([item(9, idempotency_key="one")])
    [second] = await a.enqueue_many([item(2, idempotency_key="two")])
    both = await asyncio.gather(*(c.enqueue_many([item(3, idempotency_key="three")]) for c in (a, b) for _ in range(5)))
    assert len({tuple(ids) for ids in both}) == 1
    request = {"Idempotency-Key": "a whole request"}
    told = await post(stage, stage.brokers[0], "/enqueue", [{"topic": "work", "payload": "eA=="}] * 3, request)
    assert await post(stage, stage.brokers[1], "/enqueue", [{"topic": "work", "payload": "eA=="}] * 3, request) == told
    await go_hot(stage)
    assert await b.enqueue_many([item(2, idempotency_key="two")]) == [second]
    assert await post(stage, stage.brokers[1], "/enqueue", [{"topic": "work", "payload": "eA=="}] * 3, request) == told


async def test_a_broker_that_alone_cannot_reach_redis_only_takes_enqueues(stage: Stage, clients: list[AsyncClient]) -> None:
    """Whichever it is: a leader gives way."""
    leader = await stage.leader()
    cut, other = (0, 1) if leader is stage.brokers[0] else (1, 0)
    stage.brokers[cut].redis.cut()

    async def other_leads() -> bool:
        return await stage.metric(stage.brokers[other], "mqueue_leader") == 1

    await until(other_leads, "the other leads", 10)
    await until(lambda: apart(clients[cut]), "the first takes enqueues again", COLD_S)
    told = await post(stage, stage.brokers[cut], "/enqueue", [{"topic": "work", "payload": "eA=="}] * 3)
    with pytest.raises(MQueueError):
        await clients[cut].fetch(["work"])
    got = await fetched(clients[other], ["work"], wait=5, limit=1)
    assert got[0].id in told
    assert await stage.metric(stage.brokers[other], "mqueue_cold") == 0
    stage.brokers[cut].redis.heal()
    await stage.settled()
    ids = {m.id for _ in range(3) for m in await fetched(clients[cut], ["work"], wait=1, limit=1)}
    assert ids | {got[0].id} >= set(told)


async def test_a_key_that_was_let_in_before_redis_was_cut_off_is_refused(stage: Stage, clients: list[AsyncClient]) -> None:
    """It waits behind a batch that Redis does not answer. Another broker may have taken its repeat meanwhile."""
    cut = await follower(stage)
    cut.redis.stall()
    http = Http(cut.url, stage.token)
    body = [{**http.name, "payload": "eA=="}]
    first = asyncio.create_task(asyncio.to_thread(http.call, "POST", "/enqueue", body))
    await asyncio.sleep(0.2)  # it is under way: time itself is the condition
    reply = await asyncio.to_thread(http.call, "POST", "/enqueue", body, headers={"Idempotency-Key": "k"})
    assert reply.status == 503
    assert "the idempotency and unique keys" in reply.body["detail"]
    await first
    cut.redis.heal()
    await stage.settled()


async def follower(stage: Stage) -> Broker:
    leader = await stage.leader()
    return next(broker for broker in stage.brokers if broker is not leader)


async def post(stage: Stage, broker: Broker, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    """Without a key of its own."""
    http = Http(broker.url, stage.token)
    return http.good(await asyncio.to_thread(http.call, "POST", path, [http.name | item for item in body], headers=headers))


async def durability(stage: Stage, **asked: str) -> str:
    http = Http(stage.brokers[0].url, stage.token, topic="other")
    reply = await asyncio.to_thread(http.call, "POST", "/enqueue", [http.name], headers=asked)
    assert reply.status == 200
    return str(reply.headers["mqueue-durability"])


async def apart(client: AsyncClient) -> bool:
    try:
        await client.topics()
        return False
    except MQueueError:
        return True


async def flushed(stage: Stage) -> bool:
    return await stage.metric(await stage.leader(), "mqueue_buffer_bytes") == 0


async def test_one_waits_under_a_unique_key_whichever_store_serves(stage: Stage, clients: list[AsyncClient]) -> None:
    async def enqueued(key: str) -> int:
        """By every broker, several times at once: the one id that they say."""
        told = await asyncio.gather(*(client.enqueue("work", b"", unique_key=key) for client in clients for _ in range(5)))
        assert len(set(told)) == 1, told
        return told[0]

    a, b = await enqueued("a"), await enqueued("b")
    await go_cold(stage)
    assert [await enqueued(key) for key in "ab"] == [a, b]
    [running] = await fetched(clients[1], ["work"], limit=1)
    assert running.id == a
    again, c = await enqueued("a"), await enqueued("c")
    assert len({a, b, c, again}) == 4
    await go_hot(stage)
    assert [await enqueued(key) for key in "abc"] == [again, b, c], "the first one still runs"
    assert [v.status for v in await clients[0].nack([running], retry_after=60)] == ["ok"]
    assert await enqueued("a") in (a, again)
    assert {m.id for m in await fetched(clients[0], ["work"], limit=10)} == {again, b, c}
    assert await enqueued("a") == a, "it waits for its retry"
