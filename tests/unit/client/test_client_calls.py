"""Both clients against a broker: each call's main case, and what a failing broker or network does to it."""

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from fake_broker import FakeBroker

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.errors import Unauthorized, Unavailable


@pytest.fixture
def topic() -> str:
    return f"t-{uuid4().hex}"


class Either:
    """One set of tests for both clients: calls the sync one in a thread."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if inspect.iscoroutinefunction(method):
                return await method(*args, **kwargs)
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


def make(kind: type, broker: FakeBroker, pauses: list[float]) -> Any:
    async def async_sleep(seconds: float) -> None:
        pauses.append(seconds)

    sleep = async_sleep if kind is AsyncClient else pauses.append
    return kind(broker.url, broker.token, jitter=lambda: 0.0, sleep=sleep)


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture(params=[Client, AsyncClient])
async def client(request: pytest.FixtureRequest, broker: FakeBroker, pauses: list[float]) -> AsyncIterator[Either]:
    either = Either(make(request.param, broker, pauses))
    yield either
    await either.close()


async def test_a_message_there_and_back(client: Either, topic: str) -> None:
    id = await client.enqueue(topic, b"\x00hello", priority=3, metadata={"who": "ada"})
    [message] = await client.fetch(topic, limit=5)
    assert (message.id, message.payload, message.priority, message.attempt) == (id, b"\x00hello", 3, 1)
    assert message.metadata == {"who": "ada"}
    assert (await client.message(id)).state == "leased"
    assert await client.extend([message], lease=60) == [wire.Verdict(id, "ok")]
    assert await client.ack([message]) == [wire.Verdict(id, "ok")]
    assert await client.ack([message]) == [wire.Verdict(id, "gone")]
    assert await client.message(id) is None


async def test_a_dead_letter_is_listed_and_deleted(client: Either, topic: str) -> None:
    id = await client.enqueue(topic, b"x", max_retries=0)
    [message] = await client.fetch(topic)
    assert await client.nack([message], error="broken") == [wire.Verdict(id, "ok")]
    [dead] = await client.dead_letters(topic)
    assert (dead.id, dead.error, dead.attempts) == (id, "broken", 1)
    assert await client.dead_letters(topic, after=id) == []
    assert await client.delete_dead(topic, [id]) == [wire.Verdict(id, "ok")]
    assert await client.delete_dead(topic, [id]) == [wire.Verdict(id, "gone")]


async def test_many_are_enqueued_in_order_over_several_requests(client: Either, topic: str) -> None:
    ids = await client.enqueue_many([wire.EnqueueItem(topic=topic, payload=b"%d" % n) for n in range(1500)])
    assert len(set(ids)) == 1500
    messages = await client.fetch(topic, limit=1000)
    assert [message.id for message in messages] == ids[:1000]
    assert [verdict.status for verdict in await client.ack(messages)] == ["ok"] * 1000


async def test_poll_settles_and_fetches(client: Either, topic: str) -> None:
    ids = await client.enqueue_many([wire.EnqueueItem(topic=topic) for _ in range(2)])
    [first] = (await client.poll(wire.Poll(topics=[topic], limit=1))).messages
    done = wire.PollSettle(id=first.id, topic=topic, receipt=first.receipt, kind="ack")
    polled = await client.poll(wire.Poll(topics=[topic], limit=5, settle=[done]))
    assert polled.verdicts == [wire.Verdict(ids[0], "ok")]
    assert [message.id for message in polled.messages] == ids[1:]


async def test_topics_and_health(client: Either, topic: str) -> None:
    await client.enqueue(topic, b"")
    assert topic in [t.topic for t in await client.topics("default")]
    assert topic not in [t.topic for t in await client.topics("another")]
    assert await client.health() is True


async def test_readiness_is_told_whether_or_not_it_serves(client: Either, broker: FakeBroker) -> None:
    assert (await client.ready()).status == "ready"
    broker.mode = "recovering"
    told = await client.ready()
    assert (told.status, [shard.mode for shard in told.shards]) == ("not-ready", ["recovering"])
    broker.refuse("/ready")
    with pytest.raises(Unavailable, match="refused on demand"):
        await client.ready()


async def test_an_enqueue_cut_off_is_sent_again_and_stored_once(client: Either, broker: FakeBroker, topic: str, pauses: list[float]) -> None:
    broker.cut_after_work("/enqueue", times=2)
    id = await client.enqueue(topic, b"once")
    assert [s.id for s in broker.live()] == [id]
    assert broker.requests["/enqueue"] == 3
    assert pauses == [0.2, 0.4]


async def test_503_is_retried_as_the_broker_asks_then_told(client: Either, broker: FakeBroker, topic: str, pauses: list[float]) -> None:
    broker.refuse("/enqueue", times=99, retry_after=2)
    with pytest.raises(Unavailable, match="refused on demand"):
        await client.enqueue(topic, b"")
    assert pauses == [2.0, 2.0, 2.0]
    assert broker.requests["/enqueue"] == 4


async def test_a_fetch_is_not_sent_twice(client: Either, broker: FakeBroker, topic: str) -> None:
    broker.refuse("/dequeue")
    with pytest.raises(Unavailable):
        await client.fetch(topic)
    assert broker.requests["/dequeue"] == 1


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_without_safe_retries_an_enqueue_is_sent_once_without_a_key(kind: type, broker: FakeBroker, topic: str) -> None:
    client = Either(kind(broker.url, broker.token, safe_retries=False))
    await client.enqueue(topic, b"")
    assert [s.item.idempotency_key for s in broker.live()] == [None]
    broker.refuse("/enqueue")
    with pytest.raises(Unavailable):
        await client.enqueue(topic, b"")
    assert broker.requests["/enqueue"] == 2
    await client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_wrong_token_is_told(kind: type, broker: FakeBroker) -> None:
    client = Either(kind(broker.url, "wrong"))
    with pytest.raises(Unauthorized):
        await client.topics()
    await client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_nobody_there(kind: type) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    client = Either(kind(url, "t", retries=False))
    with pytest.raises(Unavailable, match=url):
        await client.topics()
    assert await client.health() is False
    await client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_broker_that_does_not_answer_is_given_up(kind: type, broker: FakeBroker) -> None:
    broker.be_late(5)
    client = Either(kind(broker.url, broker.token, retries=False, timeout=0.1))
    async with asyncio.timeout(3):
        with pytest.raises(Unavailable):
            await client.topics()
    await client.close()


async def test_a_fetch_waits_for_a_message(client: Either, topic: str) -> None:
    waiting = asyncio.create_task(client.fetch(topic, wait=10))
    id = await client.enqueue(topic, b"")
    async with asyncio.timeout(5):
        assert [message.id for message in await waiting] == [id]
