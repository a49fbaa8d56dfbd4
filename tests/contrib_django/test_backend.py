"""The backend of Django's tasks: what is enqueued, when, and how it runs."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from mqueue.testing import Drained, Inline, Manual


def notes() -> list[str]:
    from shop.models import Note

    return list(Note.objects.order_by("id").values_list("text", flat=True))


@pytest.fixture
def told(database: str) -> Iterator[list[tuple[str, str, str]]]:
    """Django's signals: name, id and status of the result."""
    from django.tasks import signals

    told: list[tuple[str, str, str]] = []

    def note(name: str) -> Any:
        return lambda task_result, **_: told.append((name, task_result.id, task_result.status.name))

    receivers = [(getattr(signals, f"task_{name}"), note(name)) for name in ("enqueued", "started", "finished")]
    for each, receiver in receivers:
        each.connect(receiver, weak=False)
    yield told
    for each, receiver in receivers:
        each.disconnect(receiver)


def test_what_django_says_in_our_words(tasks: Any, mqueue_manual: Manual, told: list[tuple[str, str, str]]) -> None:
    from django.utils import timezone

    later = timezone.now() + timedelta(hours=1)
    result = tasks.send.enqueue("ada")
    urgent = tasks.send.using(priority=100, run_after=later).enqueue(to="bob")
    plain = tasks.send_async.enqueue("eve")
    first, second, third = mqueue_manual.enqueued
    assert (result.id, urgent.id, plain.id) == (str(first.id), str(second.id), str(third.id))
    assert (first.message.namespace, first.message.topic, first.message.priority, first.message.max_retries) == ("django", "emails", -10, 1)
    assert (second.message.priority, second.message.deliver_after) == (-100, later)
    assert (third.message.topic, third.message.priority, third.message.deliver_after) == ("default", 0, None)
    assert (first.args, second.args) == (("shop.tasks.send", ["ada"], {}), ("shop.tasks.send", [], {"to": "bob"}))
    assert (result.status.name, result.args, result.backend, result.is_finished) == ("READY", ["ada"], "default", False)
    assert result.enqueued_at is not None
    assert told == [("enqueued", each.id, "READY") for each in (result, urgent, plain)]


def test_the_more_urgent_runs_first_and_both_kinds_run(tasks: Any, mqueue_manual: Manual, told: list[tuple[str, str, str]]) -> None:
    low, high = tasks.send_async.enqueue("low"), tasks.send.enqueue("high")
    told.clear()
    assert mqueue_manual.drain() == Drained(done=2)
    assert notes() == ["sent to high", "sent async to low"]
    assert told == [(name, each.id, status) for each in (high, low) for name, status in (("started", "RUNNING"), ("finished", "SUCCESSFUL"))]


def test_inside_a_transaction_it_is_enqueued_at_the_commit(tasks: Any, mqueue_manual: Manual) -> None:
    from django.db import transaction

    with transaction.atomic():
        result = tasks.send.enqueue("ada")
        assert mqueue_manual.enqueued == []
        assert result.id.startswith("uncommitted-")
        assert result.enqueued_at is None
    assert result.id == str(mqueue_manual.enqueued[0].id)
    with pytest.raises(KeyError), transaction.atomic():
        tasks.send.enqueue("bob")
        raise KeyError
    assert len(mqueue_manual.enqueued) == 1


def test_without_on_commit_it_is_enqueued_at_once(tasks: Any, mqueue_manual: Manual) -> None:
    from django.conf import settings
    from django.db import transaction
    from django.test import override_settings

    changed = {**settings.TASKS["default"], "OPTIONS": {"ENQUEUE_ON_COMMIT": False, "NAMESPACE": "other"}}
    with override_settings(TASKS={"default": changed}), transaction.atomic():
        tasks.send.enqueue("ada")
        assert [each.message.namespace for each in mqueue_manual.enqueued] == ["other"]


async def test_on_a_loop(tasks: Any, mqueue_manual: Manual) -> None:
    from asgiref.sync import sync_to_async

    result = await tasks.send_async.aenqueue("ada")
    await tasks.send.aenqueue("bob")
    assert result.id == str(mqueue_manual.enqueued[0].id)
    await mqueue_manual.drain_async()
    assert await sync_to_async(notes)() == ["sent to bob", "sent async to ada"]


def test_attempts_and_the_last_failure(tasks: Any, mqueue_manual: Manual, told: list[tuple[str, str, str]]) -> None:
    result = tasks.attempt.enqueue(fail="error")
    other = tasks.attempt_async.enqueue()
    told.clear()
    assert mqueue_manual.drain(to_the_end=True, dead_ok=True) == Drained(failed=2, dead=2)
    assert notes() == [f"attempt {n} of {result.id}" for n in (1, 2)]
    assert sorted(told) == sorted(
        [
            *(("started", each.id, "RUNNING") for each in (result, other) for _ in range(2)),
            *(("finished", each.id, "FAILED") for each in (result, other)),
        ]
    )
    assert [str(dead.raised) for dead in mqueue_manual.dead] == ["not yet", "attempt 2"]


def test_a_snooze_is_no_failure(tasks: Any, mqueue_manual: Manual, told: list[tuple[str, str, str]]) -> None:
    result = tasks.attempt.enqueue(fail="snooze")
    assert mqueue_manual.drain(to_the_end=True) == Drained(snoozed=1, done=1)
    assert notes() == [f"attempt 1 of {result.id}"] * 2
    assert [each[0] for each in told] == ["enqueued", "started", "started", "finished"]


def test_inline(tasks: Any, mqueue_inline: Inline) -> None:
    tasks.send.enqueue("ada")
    with pytest.raises(ValueError, match="attempt 1"):
        tasks.attempt_async.enqueue()
    assert notes() == ["sent to ada"]


def test_what_cannot_be_sent_is_refused_at_the_call(tasks: Any, mqueue_manual: Manual) -> None:
    from django.db import transaction
    from django.tasks.exceptions import InvalidTask

    for wrong in ({"queue_name": "unknown"}, {"priority": 101}):
        with pytest.raises(InvalidTask):
            tasks.send.using(**wrong)
    with transaction.atomic():
        with pytest.raises((InvalidTask, TypeError)):
            tasks.send.enqueue(object())
        with pytest.raises(InvalidTask, match="262,144"):
            tasks.send.enqueue("x" * 300_000)
    assert mqueue_manual.enqueued == []


def test_a_message_cannot_name_what_is_no_task_of_this_worker(tasks: Any, mqueue_manual: Manual) -> None:
    from django.tasks import default_task_backend

    app = default_task_backend.app
    sys.modules.pop("antigravity", None)
    for path in ("os.system", "antigravity.fly", "shop.tasks.Note"):
        app.enqueue_many([app.get("django.default.emails").options(max_retries=0).message(path, ["true"], {})])
    assert mqueue_manual.drain(dead_ok=True) == Drained(dead=3)
    assert all(dead.error.startswith("mqueue.contrib.django.runner.UnknownTask: no module") for dead in mqueue_manual.dead)
    assert "antigravity" not in sys.modules


def test_the_backend_says_what_it_supports(tasks: Any) -> None:
    from django.tasks import default_task_backend as backend

    assert backend.supports_defer
    assert backend.supports_priority
    assert backend.supports_async_task
    assert backend.supports_get_result


def test_all_threads_share_one_app(tasks: Any) -> None:
    from django.tasks import default_task_backend as backend

    apps = [backend.app]
    thread = threading.Thread(target=lambda: apps.append(backend.app))
    thread.start()
    thread.join()
    assert apps[0] is apps[1]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"QUEUES": []}, "QUEUES is empty"),
        ({"QUEUES": ["a b"]}, "'a b' is no topic"),
        ({"OPTIONS": {"URLS": "x"}}, "OPTIONS has URLS; there are"),
        ({"OPTIONS": {"RESULT_TTL": 0}}, "result_ttl=0: seconds above 0 to 2,592,000"),
    ],
)
def test_wrong_settings_are_named(database: str, params: dict[str, Any], says: str) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from mqueue.contrib.django import MQueueBackend

    with pytest.raises(ImproperlyConfigured, match=says):
        MQueueBackend("wrong", params)


def test_the_check_finds_a_database_that_is_not_there(tasks: Any) -> None:
    from mqueue.contrib.django import MQueueBackend

    assert [error.id for error in MQueueBackend("a", {"OPTIONS": {"DATABASE": "other"}}).check()] == ["mqueue.E001"]
    assert MQueueBackend("b", {"OPTIONS": {"DATABASE": "other", "ENQUEUE_ON_COMMIT": False}}).check() == []
    assert MQueueBackend("c", {"OPTIONS": {"MIDDLEWARE": ["mqueue.LogContext"]}}).check() == []


def test_connections_are_not_kept_beyond_a_job(tasks: Any, mqueue_manual: Manual) -> None:
    from django.db import connection

    tasks.send.enqueue("ada")
    notes()
    assert connection.connection is not None
    mqueue_manual.drain()
    assert connection.connection is None  # CONN_MAX_AGE is 0
    tasks.send_async.enqueue("ada")
    asyncio.run(mqueue_manual.drain_async())
    assert len(notes()) == 2
