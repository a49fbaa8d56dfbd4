"""The broker in memory: the methods that it shares with `Client`, its idempotency keys, its order beside that of a look
at all.
"""

import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.errors import Invalid, KeyReused
from mqueue.testing import ManualClock, MemoryBroker
from mqueue.testing.answers import Answers, AsyncAnswers


def methods(of: type) -> dict[str, inspect.Signature]:
    return {name: inspect.signature(value) for name, value in inspect.getmembers(of, inspect.isfunction) if not name.startswith("_")}


# ── the methods of a client ──


def test_it_has_the_methods_of_a_client_as_that_has_them() -> None:
    mine = methods(MemoryBroker)
    assert {name: mine.get(name) for name in methods(Client)} == methods(Client)


@pytest.mark.parametrize(("answers", "client"), [(Answers, Client), (AsyncAnswers, AsyncClient)])
def test_what_handles_ask_is_asked_as_of_a_client(answers: type, client: type) -> None:
    known = methods(client)
    assert methods(answers) == {name: known[name] for name in methods(answers)}
    assert methods(Answers).keys() == methods(AsyncAnswers).keys()


SCHEDULES: dict[str, Callable[[MemoryBroker], Any]] = {
    "schedules": lambda broker: broker.schedules(),
    "schedule": lambda broker: broker.schedule("a"),
    "put_schedule": lambda broker: broker.put_schedule("a", wire.ScheduleItem(topic="t", every=1)),
    "pause_schedule": lambda broker: broker.pause_schedule("a"),
    "resume_schedule": lambda broker: broker.resume_schedule("a"),
    "run_schedule": lambda broker: broker.run_schedule("a"),
    "delete_schedule": lambda broker: broker.delete_schedule("a"),
}


@pytest.mark.parametrize("call", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_are_refused_with_what_there_is_instead(call: Callable[[MemoryBroker], Any]) -> None:
    assert set(SCHEDULES) == {name for name in methods(Client) if "schedule" in name}
    with pytest.raises(NotImplementedError, match=r"mqueue_manual\.schedule\(task\)"):
        call(MemoryBroker(ManualClock()))


def test_a_worker_is_forgotten_when_it_stops_or_falls_silent() -> None:
    broker, clock = MemoryBroker(clock := ManualClock()), clock
    told = {
        "host": "h", "pid": 1, "version": "0", "topics": ["n/t"], "tasks": [], "slots": 1, "busy": 0, "started_at": clock.now,
    }  # fmt: skip
    for name in ("b", "a"):
        broker.tell(wire.Worker(name=name, state="running", **told))
    assert [(worker.name, worker.seen_at) for worker in broker.workers()] == [("a", clock.now), ("b", clock.now)]
    assert [worker.name for worker in broker.workers("n")] == ["a", "b"] and broker.workers("m") == []
    broker.tell(wire.Worker(name="a", state="stopped", **told))
    assert [worker.name for worker in broker.workers()] == ["b"]
    clock.advance(10)
    assert broker.workers() == []


def test_cancellations_of_what_runs_are_told_from_where_the_last_answer_ended() -> None:
    broker = MemoryBroker(ManualClock())
    first, second = (broker.enqueue("t", b"", namespace="n") for _ in range(2))
    broker.fetch("t", namespace="n")
    broker.cancel(first)
    told = broker.cancelled(["m", "n"])
    assert told.ids == [first] and broker.cancelled(["m"]).ids == []
    broker.cancel(second)
    assert broker.cancelled(["n"], since=told.since).ids == [second]
    with pytest.raises(Invalid):
        broker.cancelled(["n"], since="x")


# ── idempotency keys ──


def test_a_key_is_known_for_a_day() -> None:
    broker = MemoryBroker(clock := ManualClock())
    first = broker.enqueue("t", b"x", idempotency_key="k")
    clock.advance(86_399)
    assert broker.enqueue("t", b"x", idempotency_key="k") == first
    clock.advance(1)
    second = broker.enqueue("t", b"y", idempotency_key="k")
    assert second != first
    clock.advance(86_399)
    with pytest.raises(KeyReused):
        broker.enqueue("t", b"x", idempotency_key="k")


def test_a_key_that_is_reused_is_named_by_its_item_and_nothing_is_kept() -> None:
    broker = MemoryBroker(ManualClock())
    items = [wire.EnqueueItem(topic="t", payload=payload, idempotency_key="k") for payload in (b"x", b"x", b"y")]
    with pytest.raises(KeyReused) as refused:
        broker.enqueue_many(items)
    assert (refused.value.item, refused.value.field) == (2, "idempotency_key")
    assert broker.live() == []
    [first, second] = broker.enqueue_many(items[:2])
    assert first == second
    broker.enqueue_many([wire.EnqueueItem(topic="u", payload=b"y", idempotency_key="k")])
    with pytest.raises(KeyReused):
        broker.enqueue_many([wire.EnqueueItem(topic="t"), items[2]])
    assert len(broker.live()) == 2


# ── the order ──


@pytest.mark.parametrize("seed", range(20))
def test_the_first_is_that_of_a_look_at_all(seed: int) -> None:
    """Whatever has become of the messages meanwhile; and when the next comes, too."""
    chance = random.Random(seed)
    broker = MemoryBroker(clock := ManualClock())
    held: list[wire.Message] = []
    ids: set[int] = set()
    for _ in range(200):
        match chance.randrange(7):
            case 0 | 1:
                options: Any = {"priority": chance.randrange(3), "ttl": chance.choice([None, 20]), "unique_key": chance.choice([None, "u"])}
                id = broker.enqueue("t", b"", delay=chance.randrange(10), max_retries=chance.randrange(3), **options)
                ids |= {id} if chance.random() < 0.8 else set()
            case 2:
                held += broker.fetch("t", limit=chance.randrange(3), lease=chance.randrange(1, 9))
            case 3 if held:
                broker.extend([chance.choice(held)], lease=chance.randrange(1, 9))
            case 4 if held:
                message = held.pop(chance.randrange(len(held)))
                kind: Any = chance.choice(["ack", "nack", "release", "bury", "cancel"])
                after = chance.choice([None, 0, 3])
                broker.settle(kind, wire.SettleItem(id=message.id, topic="t", receipt=message.receipt, retry_after=after))
            case 5 if ids:
                broker.cancel(chance.choice(sorted(ids)))
            case _:
                clock.advance(chance.choice([0.5, 3]))
        first = next((s for s in broker.due() if s.id in ids), None)
        assert broker.first_due(ids) is first
        if first is None:
            assert broker.next_us(ids) == min((s.comes_us for s in broker.live() if s.id in ids), default=None)
