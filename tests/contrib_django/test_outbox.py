"""What a transaction enqueues goes out in one request when it has committed."""

from collections.abc import Sequence
from typing import Any

import pytest

from mqueue import MQueue, wire
from mqueue.errors import Unavailable
from mqueue.testing import Manual


class Requests:
    """What was sent, request by request: the first argument of each task. From request `fails` on, none is taken."""

    def __init__(self, manual: Manual, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[list[str]] = []
        self.fails: int | None = None
        self._manual, self._carry = manual, manual.carry
        monkeypatch.setattr(manual, "carry", self._note)

    def _note(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        if self.fails is not None and len(self.sent) >= self.fails:
            raise Unavailable("away")
        ids = self._carry(app, items)
        self.sent.append([each.args[1][0] for each in self._manual.enqueued[-len(items) :]])
        return ids


@pytest.fixture
def requests(tasks: Any, mqueue_manual: Manual, monkeypatch: pytest.MonkeyPatch) -> Requests:
    return Requests(mqueue_manual, monkeypatch)


class Undone(Exception):
    """Rolls a block back."""


def in_savepoint(*steps: Any, undone: bool = False) -> None:
    from django.db import transaction

    try:
        with transaction.atomic():
            for step in steps:
                step()
            if undone:
                raise Undone
    except Undone:
        pass


def test_all_of_a_transaction_are_one_request(tasks: Any, requests: Requests) -> None:
    from django.db import transaction

    with transaction.atomic():
        results = [tasks.send.enqueue("a")]
        in_savepoint(lambda: results.append(tasks.add.enqueue("b")))
        with transaction.atomic(savepoint=False):
            results.append(tasks.send_async.enqueue("c"))
        assert requests.sent == []
    assert requests.sent == [["a", "b", "c"]]
    assert [int(each.id) for each in results] == sorted(int(each.id) for each in results)
    assert all(each.enqueued_at is not None for each in results)
    with transaction.atomic():
        tasks.send.enqueue("d")
    assert requests.sent[1:] == [["d"]]


@pytest.mark.parametrize(
    ("shape", "sent"),
    [
        ("a (b) c", "a c"),
        ("a (b)", "a"),
        ("(a) b", "b"),
        ("(a)", ""),
        ("[a (b)] (c)", "a"),
        ("a ([b] c) [d (e)]", "a d"),
        ("a (b [c]) d (e)", "a d"),
    ],
)
def test_what_a_savepoint_takes_back_is_not_sent(tasks: Any, requests: Requests, shape: str, sent: str) -> None:
    """`(…)`: a block that is rolled back, `[…]`: one that is not."""
    results = {}

    def block(letters: "list[str]") -> list[Any]:
        steps: list[Any] = []
        while letters and (letter := letters.pop(0)) not in ")]":
            if letter in "([":
                inner, undone = block(letters), letter == "("
                steps.append(lambda inner=inner, undone=undone: in_savepoint(*inner, undone=undone))
            else:
                steps.append(lambda letter=letter: results.update({letter: tasks.send.enqueue(letter)}))
        return steps

    in_savepoint(*block(list(shape.replace(" ", ""))))
    assert requests.sent == ([sent.split()] if sent else [])
    assert [name for name, each in results.items() if not each.id.startswith("uncommitted-")] == sent.split()


def test_a_transaction_that_is_rolled_back_leaves_nothing_to_the_next(tasks: Any, requests: Requests) -> None:
    in_savepoint(lambda: tasks.send.enqueue("a"), undone=True)
    in_savepoint(lambda: tasks.send.enqueue("b"))
    assert requests.sent == [["b"]]


def test_each_backend_has_its_request(tasks: Any, requests: Requests) -> None:
    low = tasks.send.using(backend="low", queue_name="slow")
    in_savepoint(*(lambda task=task, to=to: task.enqueue(to) for to, task in zip("abcd", [tasks.send, low] * 2, strict=True)))
    assert requests.sent == [["a", "c"], ["b", "d"]]


def test_a_hook_may_enqueue_in_a_transaction_of_its_own(tasks: Any, requests: Requests) -> None:
    from django.db import transaction

    with transaction.atomic():
        tasks.send.enqueue("a")
        transaction.on_commit(lambda: in_savepoint(lambda: tasks.send.enqueue("hook")))
        transaction.on_commit(lambda: tasks.send.enqueue("at once"))
        tasks.send.enqueue("b")
    assert requests.sent == [["hook"], ["at once"], ["a", "b"]]


def test_hooks_that_do_not_run_send_nothing_later(tasks: Any, requests: Requests) -> None:
    from django.db import transaction

    def fail() -> None:
        raise Undone

    with pytest.raises(Undone), transaction.atomic():
        tasks.send.enqueue("a")
        transaction.on_commit(fail)
        tasks.send.enqueue("b")
    in_savepoint(lambda: tasks.send.enqueue("c"))
    assert requests.sent == [["c"]]


def test_a_broker_that_is_away_at_the_commit(tasks: Any, requests: Requests) -> None:
    from django.db import transaction
    from shop.models import Note

    hooks: list[str] = []
    requests.fails = 0
    with pytest.raises(Unavailable) as raised, transaction.atomic():
        Note.objects.create(text="is kept")
        first = tasks.send.enqueue("a")
        transaction.on_commit(lambda: hooks.append("another's"))
        last = tasks.add.enqueue("b")
    assert raised.value.__notes__ == ["The transaction has committed. Not known to be enqueued: shop.tasks.send, shop.tasks.add"]
    assert (hooks, Note.objects.count()) == (["another's"], 1)
    assert all(each.id.startswith("uncommitted-") and each.enqueued_at is None for each in (first, last))
    requests.fails = None
    in_savepoint(lambda: tasks.send.enqueue("c"))
    assert requests.sent == [["c"]], "those before are lost"


def test_what_the_first_of_two_requests_has_sent_is_told(tasks: Any, requests: Requests) -> None:
    from django.db import transaction
    from django.tasks.signals import task_enqueued

    told: list[str] = []

    def note(task_result: Any, **_: Any) -> None:
        told.append(task_result.id)

    requests.fails = 1
    task_enqueued.connect(note)
    try:
        with pytest.raises(Unavailable) as raised, transaction.atomic():
            results = [tasks.send.enqueue(str(n)) for n in range(1020)]
    finally:
        task_enqueued.disconnect(note)
    assert [len(each) for each in requests.sent] == [1000]
    assert told == [each.id for each in results[:1000]]
    assert all(each.id.startswith("uncommitted-") for each in results[1000:])
    assert raised.value.__notes__[0].endswith(", ".join(["shop.tasks.send"] * 10) + " …")


def test_a_receiver_that_raises_costs_no_task(tasks: Any, requests: Requests) -> None:
    from django.db import transaction
    from django.tasks.signals import task_enqueued

    def fail(**_: Any) -> None:
        raise Undone

    task_enqueued.connect(fail)
    try:
        with pytest.raises(Undone), transaction.atomic():
            results = [tasks.send.enqueue(to) for to in "ab"]
    finally:
        task_enqueued.disconnect(fail)
    assert requests.sent == [["a", "b"]]
    assert all(int(each.id) for each in results)


def test_hooks_that_a_test_captures(tasks: Any, requests: Requests) -> None:
    from django.db import transaction
    from django.test import TestCase

    with transaction.atomic():
        tasks.send.enqueue("before")
        for first in "ac":
            with TestCase.captureOnCommitCallbacks(execute=True):
                in_savepoint(lambda first=first: tasks.send.enqueue(first))
                tasks.send.enqueue("b")
                in_savepoint(lambda: tasks.send.enqueue("undone"), undone=True)
        transaction.set_rollback(True)
    assert requests.sent == [["a", "b"], ["c", "b"]]
