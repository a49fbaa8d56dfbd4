"""`durability=`: the header that asks for it, before the real HTTP API."""

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import http_fake
import pytest
from test_client_calls import Either

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.message import Accepted, Durability

BOTH = pytest.mark.parametrize("kind", [Client, AsyncClient])


@asynccontextmanager
async def asked(kind: type, **options: Any):
    """A client, and how many messages of which durability the broker was asked for, request by request."""
    asks: list[tuple[int, Durability]] = []

    async def enqueue(messages: Sequence[Any], key: Any = None, durability: Durability = "wal") -> Accepted:
        asks.append((len(messages), durability))
        return Accepted([2**62 + len(asks)] * len(messages), durability)

    async with http_fake.broker() as broker:
        broker.engine.enqueue = enqueue  # type: ignore[method-assign]
        client = Either(kind(broker.server.url, http_fake.token(), **options))
        yield client, asks
        await client.close()


ITEM = wire.EnqueueItem(topic="t")


@BOTH
@pytest.mark.parametrize("safe_retries", [True, False])
async def test_every_request_of_many_asks_for_it(kind: type, safe_retries: bool) -> None:
    async with asked(kind, safe_retries=safe_retries) as (client, asks):
        assert len(await client.enqueue_many([ITEM] * 1001, durability="postgres")) == 1001
        await client.enqueue_many([ITEM] * 2)
        await client.enqueue("t", b"")
    assert asks == [(1000, "postgres"), (1, "postgres"), (2, "wal"), (1, "wal")]


@BOTH
async def test_one_that_asks_for_it_shares_no_request(kind: type) -> None:
    async with asked(kind, batch=True) as (client, asks):
        assert await client.enqueue_many([ITEM], durability="postgres") == [2**62 + 1]
        assert await client.enqueue_many([ITEM]) == [2**62 + 2]
    assert asks == [(1, "postgres"), (1, "wal")]
