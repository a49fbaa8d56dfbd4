"""The list of workers in PostgreSQL: written by one broker, seen by all; who is gone; how far a message is."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest

from mqueue import wire
from mqueue.broker import tasks
from mqueue.broker.engine import workers as listed
from mqueue.broker.engine.workers import Workers
from mqueue.broker.http.convert import worker_report
from mqueue.broker.store import shard
from mqueue.broker.store.shard import ShardStore
from mqueue.clock import SystemClock
from mqueue.errors import Unavailable
from mqueue.message import WORKERS_MAX, TopicName, WorkerReport
from tests.waiting import until

HERE = TopicName("n", "t")


def report(name: str, namespace: str = "n", *, id: int = 1, attempt: int = 1, progress: float | None = None) -> WorkerReport:
    run = wire.Running(id=id, namespace=namespace, topic="t", task="x", attempt=attempt, seconds=1, progress=progress, note="'\"{}")
    return worker_report(
        wire.Worker(
            name=name, host="h", pid=1, version="1", topics=[f"{namespace}/t"], tasks=["x"], slots=1, busy=1,
            started_at=datetime(2030, 1, 1, tzinfo=UTC), state="running", running=[run],
        )
    )  # fmt: skip


async def names(workers: Workers, *namespaces: str) -> list[str]:
    return [msgspec.json.decode(text, type=wire.Worker).name for text, _ in await workers.workers(list(namespaces) or None)]


async def test_what_one_broker_hears_every_broker_shows(store: ShardStore) -> None:
    heard, other = Workers(store, SystemClock()), Workers(store, SystemClock())
    for told in (report("b", progress=0.5), report("a", "m"), report("b", progress=0.75)):
        await heard.hear(told)
    assert await names(other) == []
    await heard._write()
    assert (await names(other), await names(other, "n"), await names(other, "m", "x")) == (["a", "b"], ["b"], ["a"])
    assert await other.progress(1, HERE) == (0.75, "'\"{}")
    assert await other.progress(2, HERE) == (None, None)
    await other.hear(report("c", attempt=2, progress=0.1))  # the sleeper tells of the first attempt
    await other._write()
    assert await heard.progress(1, HERE) == (0.1, "'\"{}")
    await other.hear(report("b"), stopped=True)
    await other._write()
    assert await names(heard) == ["a", "c"]


async def test_a_worker_that_is_not_heard_of_is_gone(store: ShardStore) -> None:
    workers = Workers(store, SystemClock())
    await workers.hear(report("silent", progress=0.5))
    await workers._write()
    async with store.transaction() as connection:
        await connection.execute("UPDATE worker SET seen_at = now() - interval '11 s'")
    assert await names(workers) == [] and await workers.progress(1, HERE) == (None, None)


async def test_what_postgres_did_not_take_is_written_later(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, put = asyncio.Event(), store.put_workers

    async def put_workers(reports: Sequence[WorkerReport]) -> None:
        try:
            await put(reports)
        finally:
            tried.set()

    monkeypatch.setattr(store, "put_workers", put_workers)
    workers = Workers(store, SystemClock())
    async with store.transaction() as connection:
        await connection.execute("ALTER TABLE worker RENAME TO hidden")
    running = asyncio.create_task(workers.run())
    try:
        await workers.hear(report("a"))
        await workers.hear(report("gone"))
        await until(tried.is_set, "a write is tried")
        await workers.hear(report("gone"), stopped=True)
        assert await workers.progress(1, HERE) == (None, None)
        async with store.transaction() as connection:
            await connection.execute("ALTER TABLE hidden RENAME TO worker")
        await until(lambda: names(workers), "it is written", enough=lambda seen: seen == ["a"])
    finally:
        await tasks.end([running])


async def test_how_many_may_tell_is_bounded(store: ShardStore) -> None:
    workers = Workers(store, SystemClock())
    for n in range(WORKERS_MAX):
        await workers.hear(report(f"w{n}"))
    with pytest.raises(Unavailable):
        await workers.hear(report("one-more"))
    await workers.hear(report("w1"))
    await workers._write()
    assert len(await names(workers)) == WORKERS_MAX


async def test_a_worker_of_another_namespace_tells_nothing_of_a_message(store: ShardStore) -> None:
    workers = Workers(store, SystemClock())
    for told in (report("forger", "other", progress=0.9), report("here", progress=0.1)):
        await workers.hear(told)
    await workers._write()
    assert await workers.progress(1, HERE) == (0.1, "'\"{}")
    assert await workers.progress(1, TopicName("n", "another")) == (None, None)


async def test_large_reports_are_written_in_several_statements_and_bounded(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    large = report("w")
    monkeypatch.setattr(listed, "BODY_MAX", 3 * len(large.text))
    monkeypatch.setattr(listed, "UNWRITTEN_MAX", 11 * len(large.text) - 1)
    workers = Workers(store, SystemClock())
    for _ in range(2):
        for n in range(10):
            await workers.hear(report(str(n)))
    with pytest.raises(Unavailable):
        await workers.hear(report("a"))
    await workers.hear(report("9"), stopped=True)
    await workers.hear(report("a"))
    statements: list[int] = []
    put = store.put_workers

    async def counted(reports: Sequence[WorkerReport]) -> None:
        statements.append(len(reports))
        await put(reports)
        await workers.hear(report("a", progress=0.5))  # tells anew meanwhile: that is written next

    store.put_workers = counted  # type: ignore[method-assign]
    await workers._write()
    assert statements == [3, 3, 3, 1] and await names(workers) == [*"012345678", "a"]
    store.put_workers = put  # type: ignore[method-assign]
    await workers._write()
    assert await workers.progress(1, HERE) == (0.5, "'\"{}") and workers._size == 0
    monkeypatch.setattr(shard, "WORKERS_BYTES_MAX", 3 * len(large.text))
    assert await names(workers) == ["0", "1", "2"]
