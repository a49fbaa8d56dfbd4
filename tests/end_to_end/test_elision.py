"""A message acked within the flush age never touches PostgreSQL."""

import asyncio

from mqueue import wire
from mqueue.client import AsyncClient
from tests.processes.broker import Broker
from tests.waiting import wait_until

COUNT = 2_000
INSERTED = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'message'"


async def _work(url: str, token: str, topic: str) -> None:
    """A producer, and a worker that keeps up with it."""
    async with AsyncClient(url, token) as client:

        async def produce() -> None:
            for _ in range(COUNT // 20):
                await client.enqueue_many([wire.EnqueueItem(topic=topic, payload=b"x")] * 20)

        async def consume() -> None:
            acked = 0
            while acked < COUNT:
                messages = await client.fetch(topic, limit=100, wait=5)
                await client.ack(messages)
                acked += len(messages)

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(consume())
            tasks.create_task(produce())


def test_what_is_acked_in_time_is_never_written() -> None:
    with Broker(env={"MQUEUE_FLUSH_AGE_MS": "3000"}) as broker:
        asyncio.run(_work(broker.url, broker.token, "quick"))
        wait_until(lambda: broker.metric("mqueue_elided_total") >= COUNT, "all are elided", 20)
        assert broker.metric("mqueue_flush_rows_total") == 0
        assert broker.sql("SELECT count(*) FROM message") == [(0,)]
        ledger = "SELECT enqueued, acked, pending FROM topic_stats WHERE topic = 'quick'"
        assert wait_until(lambda: broker.sql(ledger), "the ledger", 10) == [(COUNT, COUNT, 0)]
        asyncio.run(_enqueue(broker, "slow", 1))  # this one is: when PostgreSQL's counter shows it, it shows all before it
        assert wait_until(lambda: _inserted(broker), "PostgreSQL has counted it", 30) == 1


def test_what_stays_is_written_once() -> None:
    with Broker(env={"MQUEUE_FLUSH_AGE_MS": "100"}) as broker:
        asyncio.run(_enqueue(broker, "slow", COUNT))
        wait_until(lambda: broker.sql("SELECT count(*) FROM message") == [(COUNT,)], "all are flushed", 20)
        wait_until(lambda: _inserted(broker) == COUNT, "PostgreSQL has counted them", 30)
        assert broker.metric("mqueue_flush_rows_total") == COUNT
        assert broker.metric("mqueue_elided_total") == 0


async def _enqueue(broker: Broker, topic: str, count: int) -> None:
    async with AsyncClient(broker.url, broker.token) as client:
        await client.enqueue_many([wire.EnqueueItem(topic=topic, payload=b"x")] * count)


def _inserted(broker: Broker) -> int:
    """Rows PostgreSQL ever inserted. Its sessions report late, so wait for the number."""
    return int(broker.sql(INSERTED)[0][0])
