"""The broker in memory and the real one: the same calls, the same answers. Time passes by a clock that is moved, or by
itself.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from mqueue import wire
from mqueue.client import Client
from mqueue.errors import Invalid, JobFailed, KeyReused, NotFound, Pending
from mqueue.testing import ManualClock, MemoryBroker, TestBroker
from tests import fields
from tests.waiting import wait_until

LATER = ("delayed", "waiting")  # the latter where the real one has it in PostgreSQL alone
LONG_S = 20.0  # what the real one may take to bring what is due


@dataclass
class World:
    """`later(seconds)`: so much time has passed. On the real broker a fetch waits for what must come instead."""

    broker: Client | MemoryBroker
    namespace: str
    later: Callable[[float], None]

    def put(self, *payloads: bytes, **options: Any) -> list[int]:
        return self.broker.enqueue_many([wire.EnqueueItem(topic="t", namespace=self.namespace, payload=p, **options) for p in payloads])

    def get(self, limit: int = 100, **options: Any) -> list[wire.Message]:
        return self.broker.fetch("t", namespace=self.namespace, limit=limit, **options)

    def await_one(self) -> wire.Message:
        [message] = self.get(wait=LONG_S, limit=1)
        return message

    def settle(self, message: wire.Message, kind: str, **more: Any) -> str:
        item = wire.PollSettle(id=message.id, namespace=self.namespace, topic="t", receipt=message.receipt, kind=kind, **more)  # type: ignore[arg-type]
        [verdict] = self.broker.poll(wire.Poll(settle=[item])).verdicts
        return verdict.status

    def dead(self) -> list[wire.DeadItem]:
        return self.broker.dead_letters("t", namespace=self.namespace)


@pytest.fixture(params=["memory", "real"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "real":
        broker: TestBroker = request.getfixturevalue("mqueue_broker")
        return World(broker.client, broker.namespace, lambda seconds: None)
    clock = ManualClock()
    return World(MemoryBroker(clock), "n", clock.advance)


def test_order_is_priority_then_time_then_id(world: World) -> None:
    world.put(b"c", b"d", priority=5)
    world.put(b"a", priority=-1)
    world.put(b"b", priority=5, deliver_after=wire_time(world.put(b"e", priority=6)[0], world) - timedelta(days=1))
    assert [m.payload for m in world.get(2)] == [b"a", b"b"]
    assert [m.payload for m in world.get()] == [b"c", b"d", b"e"]
    assert world.get() == []


def test_a_page_of_dead_letters_has_4_mib_and_the_rest_comes_after_it(world: World) -> None:
    ids = [id for _ in range(3) for id in world.put(*[b"x" * 2**18] * 10, max_retries=0)]
    while messages := world.get():
        for message in messages:
            assert world.settle(message, "bury") == "ok"
    pages, after = [], 0
    while page := world.broker.dead_letters("t", namespace=world.namespace, limit=1_000, after=after):
        pages.append([letter.id for letter in page])
        after = page[-1].id
    assert [len(page) for page in pages] == [16, 14]
    assert [id for page in pages for id in page] == ids


def wire_time(id: int, world: World) -> Any:
    status = world.broker.message(id)
    assert status is not None
    return status.deliver_after


def test_a_message_comes_as_it_went(world: World) -> None:
    [id] = world.put(b"\0x", priority=3, metadata={"a": [1]}, lease=7, max_retries=9)
    [message] = world.get()
    metadata = message.metadata
    if isinstance(metadata, msgspec.Raw):
        metadata = msgspec.json.decode(metadata)
    assert (message.id, message.namespace, message.topic) == (id, world.namespace, "t")
    assert (message.payload, message.priority, metadata) == (b"\0x", 3, {"a": [1]})
    assert (message.attempt, message.max_retries, message.lease) == (1, 9, 7.0)
    [defaults] = [world.get() for _ in world.put(b"y")]
    assert (defaults[0].max_retries, defaults[0].lease, defaults[0].metadata) == (3, 30.0, None)


@pytest.mark.parametrize("way", range(len(fields.EITHER)), ids=fields.EITHER)
def test_every_field_of_a_message_comes_as_it_went(world: World, way: int) -> None:
    item = fields.ways(topic="t", namespace=world.namespace)[way]
    [id] = world.broker.enqueue_many([item])

    def status() -> wire.Status:
        told = world.broker.message(id)
        assert told is not None
        return told

    assert fields.differences(item, status()) == {}
    world.later(item.delay or 0)
    first = world.await_one()
    assert fields.differences(item, first) == {}
    assert world.settle(first, "nack", retry_after=0) == "ok"
    assert fields.differences(item, status(), but=fields.AFTER_NACK) == {}
    second = world.await_one()
    assert (second.id, second.attempt) == (id, 2)
    assert fields.differences(item, second, but=fields.AFTER_NACK) == {}
    assert fields.differences(item, status(), but=fields.AFTER_NACK) == {}
    assert world.settle(second, "nack") == "ok"
    [dead] = world.dead()
    assert fields.differences(item, dead) == {}
    assert status().state == "dead" and fields.differences(item, status(), but=fields.AFTER_NACK) == {}


def test_acks_and_receipts(world: World) -> None:
    world.put(b"x", b"y")
    x, y = world.get()
    other = msgspec.structs.replace(x, receipt="1-999999")
    assert [v.status for v in world.broker.ack([other])] == ["stale"]
    assert [v.status for v in world.broker.extend([other])] == ["stale"]
    assert [v.status for v in world.broker.extend([x, y], lease=20)] == ["ok", "ok"]
    assert [v.status for v in world.broker.ack([x, y, x])] == ["ok", "ok", "gone"]
    assert world.broker.message(x.id) is None
    assert [v.status for v in world.broker.extend([x])] == ["gone"]
    unleased = wire.SettleItem(id=world.put(b"z")[0], namespace=world.namespace, topic="t")
    assert [v.status for v in world.broker.ack([unleased])] == ["stale"]
    [z] = world.get()
    assert [v.status for v in world.broker.ack([unleased])] == ["ok"]  # without a receipt: whatever lease there is
    assert world.broker.message(z.id) is None


def test_a_nack_counts_an_attempt_and_the_last_makes_a_dead_letter(world: World) -> None:
    [id] = world.put(b"x", max_retries=1, metadata={"a": 1})
    [first] = world.get()
    assert [v.status for v in world.broker.nack([first], error="one", retry_after=0)] == ["ok"]
    second = world.await_one()
    assert (second.id, second.attempt) == (id, 2)
    status = world.broker.message(id)
    assert status is not None
    assert (status.attempts, status.state, status.error) == (1, "leased", "one")
    assert world.dead() == []
    world.broker.nack([second], error="two\0")
    [dead] = world.dead()
    assert (dead.id, dead.attempts, dead.error, dead.payload, dead.topic) == (id, 2, "two\N{REPLACEMENT CHARACTER}", b"x", "t")
    status = world.broker.message(id)
    assert status is not None
    assert status.state == "dead"
    assert world.get() == []
    assert [v.status for v in world.broker.delete_dead("t", [id, 1 << 50], namespace=world.namespace)] == ["ok", "gone"]
    assert world.dead() == []


def test_a_nack_without_a_time_waits_the_backoff(world: World) -> None:
    world.put(b"x")
    [first] = world.get()
    before = first.deliver_after
    world.settle(first, "nack")
    waiting = world.broker.message(first.id)
    assert waiting is not None
    assert waiting.state in LATER
    assert waiting.deliver_after > before
    world.later(1)
    assert world.await_one().attempt == 2


def test_release_spends_no_attempt_bury_ends_it(world: World) -> None:
    world.put(b"x", max_retries=0)
    for _ in range(3):
        message = world.await_one()
        assert message.attempt == 1
        assert world.settle(message, "release") == "ok"
    message = world.await_one()
    assert world.settle(message, "release", retry_after=3600) == "ok"
    status = world.broker.message(message.id)
    assert status is not None
    assert status.state in LATER
    assert status.attempts == 0
    world.put(b"y", max_retries=5)
    assert world.settle(world.await_one(), "bury", error="why") == "ok"
    assert [(dead.payload, dead.error, dead.attempts) for dead in world.dead()] == [(b"y", "why", 1)]


def test_a_delay_is_waited_for(world: World) -> None:
    world.put(b"late", delay=1, priority=-5)
    world.put(b"never", delay=3600, priority=-5)
    world.put(b"now")
    began = time.monotonic()
    got = [m.payload for m in world.get()]
    assert got == [b"now"] or time.monotonic() - began > 1
    world.later(1)
    if got == [b"now"]:
        assert world.await_one().payload == b"late"

    def leased() -> list[tuple[str, int]]:
        return [(each.topic, each.leased) for each in world.broker.topics(world.namespace)]

    wait_until(leased, "the real broker counts a little later", LONG_S, enough=lambda seen: seen == [("t", 2)])


def test_a_lease_that_ends_costs_an_attempt_and_the_receipt(world: World) -> None:
    world.put(b"x", max_retries=1)
    [first] = world.get(lease=0.3)
    world.later(0.3)
    second = world.await_one()
    assert (second.attempt, second.deliver_after) == (2, first.deliver_after)
    assert world.settle(first, "ack") == "stale"
    assert world.settle(second, "release") == "ok"
    third = world.get(lease=0.3)[0]
    assert third.attempt == 2
    world.later(0.3)

    def dead_letters() -> list[wire.DeadItem]:
        assert world.get(wait=0.1) == []
        return world.dead()

    [dead] = wait_until(dead_letters, "it is dead", LONG_S)
    assert (dead.attempts, (dead.error or "").partition(":")[0]) == (2, "the lease expired")


def test_a_renewed_lease_goes_on(world: World) -> None:
    world.put(b"x")
    [message] = world.get(lease=1)
    world.broker.extend([message], lease=3600)
    world.later(1)
    assert world.get(wait=1.2) == []
    assert world.settle(message, "ack") == "ok"


def test_what_expires_is_gone_unless_a_worker_has_it(world: World) -> None:
    world.put(b"leased", ttl=0.5)
    [leased] = world.get()
    [id] = world.put(b"x", ttl=0.5, delay=0.7)
    world.put(b"after it", delay=0.7, priority=9)
    world.later(0.7)
    assert world.await_one().payload == b"after it"
    assert world.broker.message(id) is None
    assert world.settle(leased, "ack") == "ok"
    assert world.dead() == []


def test_results(world: World) -> None:
    [id, dead, none, short] = world.put(b"x", b"dead", b"none", b"short", max_retries=0)
    here = {"topic": "t", "namespace": world.namespace}
    with pytest.raises(Pending, match=r"ready|waiting"):
        world.broker.result(id, **here)
    x, d, n, s = world.get()
    assert world.settle(msgspec.structs.replace(x, receipt="1-999999"), "ack", result=b"no") == "stale"
    with pytest.raises(Pending, match="leased"):
        world.broker.result(id)
    assert world.settle(x, "ack", result=b"[1]") == "ok"
    assert world.settle(x, "ack", result=b"[2]") == "gone"  # a repetition
    assert world.broker.result(id, **here) == world.broker.result(id) == b"[1]"
    with pytest.raises(NotFound):
        world.broker.result(id, **{**here, "topic": "u"})
    status = world.broker.message(id)
    assert status is not None
    assert (status.state, status.topic, status.payload, status.attempts) == ("done", "t", b"", 0)
    assert [each.status for each in (world.broker.cancel(id), *world.broker.extend([x]))] == ["gone", "gone"]
    assert world.settle(d, "nack", error="why") == "ok"
    with pytest.raises(JobFailed, match="why"):
        world.broker.result(dead, **here)
    assert world.settle(n, "ack") == "ok"
    with pytest.raises(NotFound):
        world.broker.result(none, **here)
    assert world.settle(s, "ack", result=b"[3]", result_ttl=0.2) == "ok"
    world.later(0.2)
    wait_until(lambda: world.broker.message(short), "its result has expired", LONG_S, enough=lambda status: status is None)
    with pytest.raises(NotFound):
        world.broker.result(short, **here)


def test_one_waits_under_a_unique_key(world: World) -> None:
    [first] = world.put(b"x", unique_key="k", priority=2)
    [other] = world.put(b"y", unique_key="other", priority=5)
    assert world.put(b"z", b"z", unique_key="k", priority=1) == [first, first]
    assert world.put(b"z", unique_key="k", idempotency_key="i") == [first]
    [running] = world.get(1)
    assert (running.id, running.payload, running.priority) == (first, b"x", 2)
    [second] = world.put(b"x", unique_key="k")
    assert second not in (first, other)
    assert world.settle(running, "release") == "ok"
    assert world.put(b"x", unique_key="k")[0] in (first, second)
    assert {m.id for m in world.get()} == {first, second, other}
    [third] = world.put(b"x", unique_key="k")
    assert third not in (first, second, other)


def test_what_cancels_of_running_messages_is_told(world: World) -> None:
    [id] = world.put(b"x")
    world.get()
    assert world.broker.cancelled([world.namespace]).ids == []
    assert world.broker.cancel(id).status == "cancelling"
    told = world.broker.cancelled([world.namespace], wait=5)
    assert told.ids == [id]
    assert world.broker.cancelled([world.namespace], since=told.since).ids == []
    with pytest.raises(Invalid):
        world.broker.cancelled([world.namespace], since="x")


def test_workers_that_tell_of_themselves_are_shown(world: World) -> None:
    def told(state: Any) -> wire.Worker:
        topics = [f"{world.namespace}/t"]
        return wire.Worker(
            name=world.namespace,
            host="h",
            pid=1,
            version="0",
            topics=topics,
            tasks=[],
            slots=1,
            busy=0,
            started_at=ManualClock().now,
            state=state,
        )

    def names() -> list[str]:
        return [worker.name for worker in world.broker.workers(world.namespace) if worker.seen_at is not None]

    for state, expected in (("running", [world.namespace]), ("stopped", [])):
        world.broker.tell(told(state))
        wait_until(names, "the real broker writes it a little later", LONG_S, enough=lambda seen, expected=expected: seen == expected)
    assert world.broker.health() and world.broker.ready().status == "ready"


def test_idempotency_keys(world: World) -> None:
    [first] = world.put(b"x", idempotency_key="k")
    assert world.put(b"x", idempotency_key="k") == [first]
    [message] = world.get()
    world.broker.ack([message])
    assert world.put(b"x", idempotency_key="k") == [first]  # it has been done
    with pytest.raises(KeyReused):
        world.put(b"y", idempotency_key="k")
    with pytest.raises(KeyReused):
        world.put(b"x", idempotency_key="k", priority=1)
    assert world.get() == []
    [elsewhere] = world.broker.enqueue_many([wire.EnqueueItem(topic="u", namespace=world.namespace, payload=b"y", idempotency_key="k")])
    assert elsewhere != first


def test_idempotency_keys_within_a_request(world: World) -> None:
    [first, second] = world.put(b"x", b"x", idempotency_key="k")
    assert first == second
    with pytest.raises(KeyReused) as refused:
        world.put(b"y", b"z", idempotency_key="l")
    assert refused.value.item == 1
    assert [m.id for m in world.get()] == [first]
    assert first not in world.put(b"z", idempotency_key="l")


def test_a_default_is_the_same_message_as_what_it_stands_for(world: World) -> None:
    [first] = world.put(b"x", idempotency_key="k")
    assert world.put(b"x", idempotency_key="k", max_retries=3, lease=30.0001) == [first]
    for other in ({"max_retries": 2}, {"lease": 31}, {"delay": 0}):
        with pytest.raises(KeyReused):
            world.put(b"x", idempotency_key="k", **other)


@pytest.mark.parametrize(
    "wrong",
    [{"topic": "a b"}, {"delay": -1}, {"ttl": 0}, {"priority": 1 << 31}, {"payload": b"x" * (256 * 1024 + 1)}, {"delay": 1, "at": True}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_item_is_refused_and_with_it_the_whole_request(world: World, wrong: dict[str, Any]) -> None:
    if wrong.pop("at", False):
        wrong["deliver_after"] = ManualClock().now
    items = [wire.EnqueueItem(topic="t", namespace=world.namespace), wire.EnqueueItem(**{"topic": "t", "namespace": world.namespace, **wrong})]
    with pytest.raises(Invalid):
        world.broker.enqueue_many(items)
    assert world.get() == []
