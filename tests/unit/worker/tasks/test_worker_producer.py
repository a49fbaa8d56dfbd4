"""What carries `task.enqueue`: its clients, how they are made, and that none outlives its loop."""

import asyncio
import gc
from typing import Any
from weakref import ref

import pytest
from fake_broker import FakeBroker

from mqueue import MQueue
from mqueue.errors import Unavailable

LIMITS: dict[str, Any] = {"timeout": 0.3, "retries": False, "connections": 7, "batch": True}


def with_task(app: MQueue) -> Any:
    @app.task(topic="t", name="job")
    def job(n: int) -> None: ...

    return job


def test_no_loop_that_has_ended_is_kept(app: MQueue) -> None:
    job, loops = with_task(app), []

    async def enqueue(n: int) -> None:
        await job.enqueue_async(n)
        loops.append(ref(asyncio.get_running_loop()))

    for n in range(5):
        asyncio.run(enqueue(n))
    gc.collect()
    assert len(app.producer._async) == 0
    assert [loop() for loop in loops] == [None] * 5


async def test_a_loop_has_one_client_until_it_ends(app: MQueue) -> None:
    first = await app.producer.async_client()
    assert await app.producer.async_client() is first
    app.producer.connect("http://127.0.0.1:1", "t")
    second = await app.producer.async_client()
    gc.collect()
    for _ in range(3):  # the first's end is no business of the second
        await asyncio.sleep(0)
    assert await app.producer.async_client() is second
    with pytest.raises(Unavailable, match="closed"):
        await first.topics()


async def test_its_clients_are_made_as_it_was_told(broker: FakeBroker) -> None:
    app = MQueue(broker.url, broker.token, **LIMITS)
    sync, on_loop = app.producer.client(), await app.producer.async_client()
    assert [(each._timeout, each._retries, each._connections) for each in (sync, on_loop)] == [(0.3, False, 7)] * 2
    assert sync._batch and on_loop._sharing is not None
    app.producer.connect(broker.url, broker.token)
    assert app.producer.client()._timeout == 0.3, "another broker, the same limits"


async def test_a_broker_that_hangs_holds_nobody_up_for_longer_than_was_said(broker: FakeBroker) -> None:
    job = with_task(MQueue(broker.url, broker.token, timeout=0.3))
    broker.be_late(5)
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable):
            await asyncio.to_thread(job.enqueue, 1)
        with pytest.raises(Unavailable):
            await job.enqueue_async(1)


def test_an_option_that_there_is_not_is_told_at_once() -> None:
    with pytest.raises(TypeError, match=r"'time_out'.*batch, connections, retries, timeout"):
        MQueue(time_out=3)  # type: ignore[call-arg]
