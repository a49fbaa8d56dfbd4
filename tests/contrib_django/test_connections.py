"""Whose database connections the jobs use, and when those are closed."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mqueue.testing import Drained, Manual
from tests.waiting import wait_until


@pytest.fixture
def opened(database: str) -> Iterator[list[Any]]:
    """Connections to the database that are made meanwhile, outside this thread."""
    from django.db.backends.signals import connection_created

    opened: list[Any] = []
    here = threading.get_ident()

    def note(connection: Any, **_: Any) -> None:
        if threading.get_ident() != here:
            opened.append(connection)

    connection_created.connect(note)
    yield opened
    connection_created.disconnect(note)


async def test_jobs_on_the_loop_leave_each_others_connections_alone(tasks: Any, mqueue_manual: Manual, monkeypatch: pytest.MonkeyPatch) -> None:
    from asgiref.sync import sync_to_async
    from django.db import connections
    from shop.models import Note

    for name in ("in_the_middle", "go_on"):
        monkeypatch.setattr(tasks, name, asyncio.Event())
    try:
        await Note.objects.abulk_create([Note(text=str(n)) for n in range(3)])
        long = await tasks.count.aenqueue()
        first = asyncio.create_task(mqueue_manual.drain_async())
        await asyncio.wait_for(tasks.in_the_middle.wait(), 10)
        for _ in range(2):
            await tasks.count.aenqueue(says=False)
        assert await mqueue_manual.drain_async() == Drained(done=2)
        tasks.go_on.set()
        assert await first == Drained(done=1)
        await long.arefresh()
        assert long.return_value == 3
    finally:
        await sync_to_async(connections.close_all)()  # this test's


@pytest.mark.parametrize("max_age", [0, None])
def test_a_job_on_the_loop_leaves_nothing_open(
    tasks: Any, mqueue_manual: Manual, opened: list[Any], monkeypatch: pytest.MonkeyPatch, max_age: int | None
) -> None:
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", max_age)
    before = threading.active_count()
    for _ in range(3):
        tasks.send_async.enqueue("ada")
    tasks.attempt_async.enqueue()
    asyncio.run(mqueue_manual.drain_async())
    assert len(opened) == 3
    assert [each.connection for each in opened] == [None] * 3
    wait_until(threading.enumerate, "no thread is left", 10, enough=lambda threads: len(threads) <= before)


async def test_a_job_that_is_cancelled_leaves_nothing_open(
    tasks: Any, mqueue_manual: Manual, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    monkeypatch.setattr(tasks, "in_the_middle", asyncio.Event())
    monkeypatch.setattr(tasks, "go_on", asyncio.Event())
    await tasks.wait.aenqueue()
    drain = asyncio.create_task(mqueue_manual.drain_async())
    await asyncio.wait_for(tasks.in_the_middle.wait(), 10)
    drain.cancel()
    assert await drain == Drained(failed=1)
    assert [each.connection for each in opened] == [None]


def test_a_thread_keeps_its_connection_as_long_as_django_says(
    tasks: Any, mqueue_manual: Manual, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 60)
    with ThreadPoolExecutor(1) as thread:
        for _ in range(2):
            tasks.send.enqueue("ada")
            thread.submit(mqueue_manual.drain).result()
            assert [each.connection is None for each in opened] == [False]
        thread.submit(connections.close_all).result()


@pytest.mark.parametrize("on_the_loop", [False, True])
def test_a_test_that_lends_its_thread_keeps_its_connection(tasks: Any, mqueue_manual: Manual, on_the_loop: bool) -> None:
    """As one of Django's TestCase does, which runs within a transaction."""
    from asgiref.sync import async_to_sync
    from django.db import connection, transaction
    from shop.models import Note

    (tasks.send_async if on_the_loop else tasks.send).enqueue("ada")
    with transaction.atomic():
        Note.objects.create(text="of the test")
        mine = connection.connection
        drain = async_to_sync(mqueue_manual.drain_async) if on_the_loop else mqueue_manual.drain
        assert drain() == Drained(done=1)
        assert connection.connection is mine
        assert Note.objects.count() == 2
