"""What an enqueue and a job cost a broker in requests, fsyncs, script calls and rows, however fast the machine is."""

import asyncio

from mqueue import wire
from mqueue.client import AsyncClient
from tests.processes.broker import Broker
from tests.waiting import wait_until

COUNT, PAGE = 200, 100
AGAIN = 0.02  # of the stamps some must be made again


def test_an_enqueue_is_one_request_one_fsync_and_one_script_and_a_page_of_jobs_is_two() -> None:
    with Broker(env={"MQUEUE_FLUSH_AGE_MS": "60000"}) as broker:
        asyncio.run(enqueue_one_by_one(broker, 1))
        asyncio.run(drain(broker, 1))  # which opens the topic
        wait_until(lambda: knows_the_clock(broker), "the clock of a new epoch is no longer doubted", 20)
        before = costs(broker)
        asyncio.run(enqueue_one_by_one(broker))
        spent = {name: after - before[name] for name, after in costs(broker).items()}
        assert spent["requests"] == spent["fsyncs"] == COUNT, spent
        assert COUNT <= spent["apply"] <= COUNT * (1 + AGAIN), spent
        assert spent["clocks"] <= COUNT * AGAIN, spent

        before = costs(broker)
        asyncio.run(drain(broker))
        spent = {name: after - before[name] for name, after in costs(broker).items()}
        assert spent["requests"] == COUNT / PAGE + 1, spent
        assert spent["fetch"] == spent["apply"] == COUNT / PAGE, spent
        assert spent["fsyncs"] == spent["rows"] == 0, spent


def knows_the_clock(broker: Broker) -> bool:
    """An enqueue asks Redis for it otherwise."""
    before = costs(broker)["clocks"]
    asyncio.run(enqueue_one_by_one(broker, 1, "another"))
    return costs(broker)["clocks"] == before


async def enqueue_one_by_one(broker: Broker, count: int = COUNT, topic: str = "t") -> None:
    async with AsyncClient(broker.url, broker.token) as client:
        for _ in range(count):
            await client.enqueue(topic, b"x")


async def drain(broker: Broker, left: int = COUNT) -> None:
    """As a worker does: each poll settles what the one before brought."""
    async with AsyncClient(broker.url, broker.token) as client:
        settles = list[wire.PollSettle]()
        while left or settles:
            got = await client.poll(wire.Poll(topics=["t"], limit=PAGE if left else 0, settle=settles))
            settles = [wire.PollSettle(id=m.id, topic=m.topic, receipt=m.receipt, kind="ack") for m in got.messages]
            left -= len(settles)


def costs(broker: Broker) -> dict[str, float]:
    scripts = {name: broker.metric(rf'mqueue_script_seconds_count\{{script="{name}"\}}') for name in ("apply", "clocks", "fetch")}
    return scripts | {
        "requests": broker.metric("mqueue_http_requests_total"),
        "fsyncs": broker.metric("mqueue_wal_commit_seconds_count"),
        "rows": broker.metric("mqueue_flush_rows_total"),
    }
