"""Results as Django asks for them: of tasks that wait, run, have failed, are done, or are not there."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from mqueue.testing import Drained, Inline, Manual, ManualClock, TestBroker


@pytest.fixture
def backend(tasks: Any) -> Any:
    from django.tasks import default_task_backend

    return default_task_backend


@pytest.fixture
def unzoned() -> Iterator[None]:
    from django.test import override_settings

    with override_settings(USE_TZ=False):
        yield


def test_one_that_waits_is_ready(tasks: Any, backend: Any, mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    later = mqueue_clock.now + timedelta(hours=1)
    result = tasks.add.using(priority=-7, run_after=later, queue_name="default").enqueue(3, b=4)
    tasks.add.enqueue(1)
    known = backend.get_result(result.id)
    assert (known.id, known.status.name, known.backend, known.args, known.kwargs) == (result.id, "READY", "default", [3], {"b": 4})
    assert known.task == tasks.add.using(priority=-7, run_after=later, queue_name="default")
    assert (known.enqueued_at, known.started_at, known.finished_at, known.last_attempted_at) == (mqueue_clock.now, None, None, None)
    assert (known.attempts, known.errors, known.is_finished) == (0, [], False)
    with pytest.raises(ValueError, match="not finished"):
        _ = known.return_value


def test_one_that_is_done_tells_all(tasks: Any, backend: Any, mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    from django.utils import timezone

    began = timezone.now()
    result = tasks.add.using(priority=9, queue_name="default").enqueue(3, b=4)
    tasks.add.enqueue(1)
    assert mqueue_manual.drain() == Drained(done=2)
    result.refresh()
    for known in (result, tasks.add.get_result(result.id), backend.get_result(result.id)):
        assert (known.status.name, known.is_finished, known.return_value) == ("SUCCESSFUL", True, {"sum": [7], "note": None})
        assert (known.args, known.kwargs, known.errors, known.attempts) == ([3], {"b": 4}, [], 1)
        assert known.enqueued_at == mqueue_clock.now
        assert began <= known.started_at <= known.finished_at <= timezone.now()
        assert known.last_attempted_at == known.started_at
        assert known.task == tasks.add.using(priority=9, queue_name="default")
    assert len(result.worker_ids) == 1


def test_one_that_runs_is_running(tasks: Any, backend: Any, mqueue_manual: Manual) -> None:
    result = tasks.add.enqueue(3)
    mqueue_manual.broker.fetch("emails", namespace="django")
    result.refresh()
    assert (result.status.name, result.worker_ids, result.is_finished) == ("RUNNING", ["unknown"], False)


def test_failures_one_after_the_other(tasks: Any, backend: Any, mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    result = tasks.attempt_async.enqueue()
    assert mqueue_manual.drain() == Drained(failed=1)
    result = tasks.attempt_async.get_result(result.id)
    assert (result.status.name, result.attempts, result.task.run_after) == ("READY", 1, None)
    assert "attempt 1" in result.errors[0].traceback
    assert mqueue_manual.drain(to_the_end=True, dead_ok=True) == Drained(dead=1)
    result.refresh()
    assert (result.status.name, result.attempts, result.is_finished, result.finished_at) == ("FAILED", 2, True, mqueue_clock.now)
    [error] = result.errors
    assert error.exception_class is ValueError
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert error.traceback.endswith("ValueError: attempt 2")
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value


def test_an_error_of_a_class_of_its_own_and_its_chain(tasks: Any, mqueue_manual: Manual) -> None:
    from mqueue import RateLimited

    result = tasks.attempt.enqueue(fail="error")
    mqueue_manual.drain(to_the_end=True, dead_ok=True)
    result.refresh()
    assert result.errors[0].exception_class is RateLimited
    assert "in attempt\n" in result.errors[0].traceback


@pytest.mark.parametrize(
    ("text", "path", "trace"),
    [
        ("ValueError: a\n\nb\n\nTraceback (most recent call last):\n  x", "builtins.ValueError", "Traceback (most recent call last):\n  x"),
        ("KeyboardInterrupt\n\n…\n  tail", "builtins.KeyboardInterrupt", "…\n  tail"),
        ("a.b.Wrong: no\nnote", "a.b.Wrong", "a.b.Wrong: no\nnote"),
        ("a.f.<locals>.Wrong", "a.f.<locals>.Wrong", "a.f.<locals>.Wrong"),
        ("the lease expired: the worker died", "mqueue.errors.JobFailed", "the lease expired: the worker died"),
        ("print: no exception", "mqueue.errors.JobFailed", "print: no exception"),
        ("", "mqueue.errors.JobFailed", ""),
    ],
)
def test_what_a_dead_letters_error_is_to_django(tasks: Any, text: str, path: str, trace: str) -> None:
    from mqueue.contrib.django.results import error_of

    error = error_of(text)
    assert (error.exception_class_path, error.traceback) == (path, trace)


def test_a_worker_that_vanished_is_no_exception(tasks: Any, mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    from mqueue.errors import JobFailed

    result = tasks.add.enqueue(3)
    for _ in range(2):
        mqueue_clock.advance(60)
        mqueue_manual.broker.fetch("emails", namespace="django")
    mqueue_clock.advance(60)
    result.refresh()
    assert (result.status.name, result.attempts) == ("FAILED", 2)
    assert result.errors[0].exception_class is JobFailed
    assert result.errors[0].traceback.startswith("the lease expired")


@pytest.mark.parametrize(("what", "says"), [("set", "Unsupported type"), ("nan", "nan has no JSON form"), ("long", "1,048,576 are allowed")])
def test_what_cannot_be_kept_fails(tasks: Any, mqueue_manual: Manual, what: str, says: str) -> None:
    from django.tasks.signals import task_finished

    told: list[str] = []

    def note(task_result: Any, **_: Any) -> None:
        told.append(task_result.status.name)

    task_finished.connect(note)
    try:
        result = tasks.returns.enqueue(what)
        assert mqueue_manual.drain(dead_ok=True) == Drained(dead=1), "trying again would give the same"
    finally:
        task_finished.disconnect(note)
    result.refresh()
    assert (told, result.status.name) == (["FAILED"], "FAILED")
    assert result.errors[0].traceback.startswith("shop.tasks.returns: ")
    assert says in result.errors[0].traceback


async def test_on_a_loop(tasks: Any, mqueue_manual: Manual) -> None:
    result = await tasks.send_async.aenqueue("ada")
    await mqueue_manual.drain_async()
    assert (await tasks.send_async.aget_result(result.id)).status.name == "SUCCESSFUL"
    await result.arefresh()
    assert (result.status.name, result.return_value) == ("SUCCESSFUL", None)


def test_inline(tasks: Any, mqueue_inline: Inline) -> None:
    result = tasks.add.enqueue(3)
    result.refresh()
    assert result.return_value == {"sum": [4], "note": None}


def test_inside_a_transaction_there_is_none_yet(tasks: Any, mqueue_manual: Manual) -> None:
    from django.db import transaction
    from django.tasks.exceptions import TaskResultDoesNotExist

    with transaction.atomic():
        result = tasks.add.enqueue(3)
        with pytest.raises(TaskResultDoesNotExist):
            result.refresh()
    mqueue_manual.drain()
    result.refresh()
    assert result.status.name == "SUCCESSFUL"


def test_another_tasks_result_is_a_mismatch(tasks: Any, mqueue_manual: Manual) -> None:
    from django.tasks.exceptions import TaskResultMismatch

    result = tasks.add.enqueue(3)
    for _ in range(2):
        with pytest.raises(TaskResultMismatch):
            tasks.send.get_result(result.id)
        mqueue_manual.drain()


@pytest.mark.parametrize("id", ["", "7", "-1", "0", "1.0", "01", " 1", "1\n", "¹", "١", "ada", "9" * 19, "1" * 5_000, "uncommitted-x"])
def test_an_id_of_nothing(tasks: Any, backend: Any, mqueue_manual: Manual, id: str) -> None:
    from django.tasks.exceptions import TaskResultDoesNotExist

    assert tasks.add.enqueue(3).id == "1"
    with pytest.raises(TaskResultDoesNotExist):
        backend.get_result(id)


def test_what_was_cancelled_or_is_long_over_does_not_exist(tasks: Any, backend: Any, mqueue_manual: Manual, mqueue_clock: ManualClock) -> None:
    from django.tasks.exceptions import TaskResultDoesNotExist

    cancelled, done = tasks.add.enqueue(3), tasks.add.enqueue(4)
    mqueue_manual.broker.cancel(int(cancelled.id))
    mqueue_manual.drain()
    mqueue_clock.advance(3599)
    done.refresh()
    mqueue_clock.advance(2)
    for result in (cancelled, done):
        with pytest.raises(TaskResultDoesNotExist):
            backend.get_result(result.id)


def test_others_messages_are_none_of_djangos(tasks: Any, backend: Any, mqueue_manual: Manual) -> None:
    from django.conf import settings
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.test import override_settings

    from mqueue import MQueue

    theirs = MQueue("http://unused", namespace="django")

    @theirs.task(name="theirs", topic="emails", result=True)
    def like_ours(path: str, args: list[int], kwargs: dict[str, int]) -> int:
        return 0

    with override_settings(TASKS={"default": {**settings.TASKS["default"], "OPTIONS": {"NAMESPACE": "other"}}}):
        elsewhere = tasks.add.enqueue(3).id
    ours = tasks.add.enqueue(3)
    ids = [str(like_ours.enqueue("shop.tasks.add", [3], {}).id), elsewhere]
    for id in ids:
        with pytest.raises(TaskResultDoesNotExist):
            backend.get_result(id)
    assert mqueue_manual.drain() == Drained(done=3)
    for id in ids:
        with pytest.raises(TaskResultDoesNotExist):
            backend.get_result(id)
    assert backend.get_result(ours.id).return_value == {"sum": [4], "note": None}


def test_nothing_is_imported_on_a_messages_word(tasks: Any, backend: Any, mqueue_manual: Manual) -> None:
    from django.tasks.exceptions import TaskResultDoesNotExist

    app = backend.app
    [handle] = app.enqueue_many([app.get("django.default.emails").message("antigravity.fly", [], {})])
    with pytest.raises(TaskResultDoesNotExist, match=r"it is of antigravity\.fly, which no module imported here defines"):
        backend.get_result(str(handle.id))


def test_a_backend_that_keeps_none_says_so(tasks: Any, mqueue_manual: Manual) -> None:
    from django.conf import settings
    from django.tasks import default_task_backend
    from django.test import override_settings

    with override_settings(TASKS={"default": {**settings.TASKS["default"], "OPTIONS": {"RESULT_TTL": None}}}):
        assert not default_task_backend.supports_get_result
        result = tasks.returns.enqueue("set")
        with pytest.raises(NotImplementedError):
            result.refresh()
        assert mqueue_manual.drain() == Drained(done=1), "what is dropped may be anything"


def test_without_time_zones_times_have_none(tasks: Any, mqueue_manual: Manual, unzoned: None) -> None:
    result = tasks.add.enqueue(3)
    result.refresh()
    assert result.enqueued_at.tzinfo is None
    mqueue_manual.drain()
    result.refresh()
    assert (result.enqueued_at.tzinfo, result.started_at.tzinfo, result.finished_at.tzinfo) == (None, None, None)


def test_results_of_a_test_with_a_real_broker(tasks: Any, mqueue_broker: TestBroker) -> None:
    """It has a namespace of its own, which settings cannot know."""
    done, failed = tasks.add.enqueue(3), tasks.attempt_async.enqueue()
    mqueue_broker.run_until_idle()
    for result in (done, failed):
        result.refresh()
    assert (done.status.name, done.return_value) == ("SUCCESSFUL", {"sum": [4], "note": None})
    assert (failed.status.name, failed.errors[0].exception_class) == ("FAILED", ValueError)
