"""The life of a message over HTTP: delays, leases, receipts, keys, quotas, time to live, death, waiting."""

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from mqueue import wire
from mqueue.client import AsyncClient
from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.waiting import until, wait_until

QUOTA = 5


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(env={"NAMESPACE_QUOTAS": f"small:{QUOTA}"}) as broker:
        yield broker


@pytest.fixture
def http(broker: Broker) -> Http:
    """A topic of its own for each test."""
    return Http(broker.url, broker.token, topic=f"t-{uuid.uuid4().hex}")


# -- time --------------------------------------------------------------------------------------------------------------


def test_delayed_messages_come_in_time_and_never_before(http: Http) -> None:
    late = []
    for delay in (0.0, 0.05, 0.3, 0.7):
        due = datetime.now(UTC) + timedelta(seconds=delay)
        http.put(deliver_after=due.isoformat())
        (message,) = http.get(wait=5)
        came = datetime.now(UTC)
        assert came >= due
        assert datetime.fromisoformat(message["deliver_after"]) == due
        late.append((came - max(due, datetime.fromisoformat(message["created_at"]))).total_seconds())
        http.ack(message)
    assert sorted(late)[2] < 0.05, late  # one may hit a busy moment of the machine


def test_a_delayed_message_is_not_there_yet(http: Http) -> None:
    (id,) = http.put(delay=3600)
    assert http.get() == []
    assert http.get(wait=0.3) == []
    assert http.status(id).body["state"] == "delayed"
    assert wait_until(lambda: http.stats()["counters"].get("enqueued"), "flushed") == 1
    assert http.get() == []  # nor from PostgreSQL
    assert http.status(id).body["state"] == "delayed"


def test_a_message_past_its_ttl_is_gone(http: Http) -> None:
    assert http.get() == []  # the topic is open
    short, forever = http.put(ttl=0.3) + http.put()
    lost, kept = (http.status(id).body for id in (short, forever))
    assert (lost["state"], kept["state"]) == ("ready", "ready")
    time.sleep(0.35)  # time itself is the condition
    assert [m["id"] for m in http.get()] == [forever]
    wait_until(lambda: http.status(short).status == 404, "it is gone")
    wait_until(lambda: http.stats()["counters"].get("expired") == 1, "it is counted")


def test_ttl_does_not_end_a_leased_message(http: Http) -> None:
    http.put(ttl=0.3)
    (message,) = http.get()
    time.sleep(0.4)  # time itself is the condition
    assert http.ack(message).body["status"] == "ok"


# -- leases ------------------------------------------------------------------------------------------------------------


def test_an_expired_lease_brings_the_message_back(http: Http) -> None:
    (id,) = http.put(b"again")
    (first,) = http.get(lease=0.3)
    assert http.get() == []
    began = time.monotonic()
    (second,) = http.get(wait=5)
    assert 0.2 < time.monotonic() - began < 4.0, "long before the wait is over"
    assert [(m["id"], m["attempt"]) for m in (first, second)] == [(id, 1), (id, 2)]
    assert first["receipt"] != second["receipt"]


def test_a_stale_receipt_changes_nothing(http: Http) -> None:
    http.put()
    (first,) = http.get(lease=0.1)
    (second,) = http.get(wait=5)
    for call in (http.ack, http.nack, lambda m: http.settle("/extend", m)):
        reply = call(first)
        assert (reply.status, reply.body["code"]) == (409, "stale")
    several = http.call("POST", "/ack", [{**http.name, "id": m["id"], "receipt": m["receipt"]} for m in (first, second)])
    assert [v["status"] for v in several.body] == ["stale", "ok"]
    assert http.ack(second).body["status"] == "gone"  # again: harmless
    made_up = dict(second, receipt="ffff-ffff")
    assert http.ack(made_up).body["status"] == "gone"


def test_extend_keeps_the_lease(http: Http) -> None:
    http.put()
    (message,) = http.get(lease=0.4)
    for _ in range(4):
        assert http.settle("/extend", message, lease=0.4).body["status"] == "ok"
        assert http.get(wait=0.25) == []
    assert http.ack(message).body["status"] == "ok"


def test_another_topics_name_settles_nothing(http: Http) -> None:
    http.put()
    (message,) = http.get()
    reply = http.call("POST", "/ack", {**http.name, "topic": "elsewhere", "id": message["id"]})
    assert reply.body.get("status") != "ok"
    assert http.ack(message).body["status"] == "ok"


def test_the_metrics_show_the_engine_at_work(broker: Broker, http: Http) -> None:
    http.put(*[b"x"] * 5)
    [message] = http.get(limit=1)
    http.put(delay=20)
    wait_until(lambda: broker.metric("mqueue_leased") >= 1 and broker.metric("mqueue_delayed_depth") >= 1, "the leader has looked")
    assert broker.metric("mqueue_ready_queue_depth") >= 4
    assert broker.metric("mqueue_batch_size_count") >= 2
    assert broker.metric("mqueue_script_seconds_count") >= 4
    http.ack(message)


# -- keys and quotas ---------------------------------------------------------------------------------------------------


def test_an_idempotency_key_gives_the_first_id(http: Http) -> None:
    (first,) = http.put(b"pay", idempotency_key="k")
    assert http.put(b"pay", idempotency_key="k") == [first]
    _refuses_another_body(http)
    wait_until(lambda: http.stats()["counters"].get("enqueued") == 1, "flushed")
    assert http.put(b"pay", idempotency_key="k") == [first]
    (message,) = http.get()
    http.ack(message)
    assert http.put(b"pay", idempotency_key="k") == [first]  # acked or not
    _refuses_another_body(http)
    assert http.get() == []


def test_a_request_under_an_idempotency_key_gives_the_same_ids_again(http: Http) -> None:
    items = [{**http.name, "payload": "eA==", "priority": n % 7} for n in range(300)]
    send = partial(http.call, "POST", "/enqueue", headers={"Idempotency-Key": '"a request"'})
    ids = http.good(send(items))
    assert http.good(send(items)) == ids
    with ThreadPoolExecutor(4) as pool:
        assert [http.good(reply) for reply in pool.map(send, [items] * 8)] == [ids] * 8
    reply = send(items[:-1])
    assert (reply.status, reply.body["code"], reply.body["field"]) == (422, "key-reused", "Idempotency-Key")
    assert len(http.get(limit=1000)) == 300


def test_a_request_and_an_item_may_not_both_have_a_key(http: Http) -> None:
    items = [{**http.name}, {**http.name, "idempotency_key": "k"}]
    reply = http.call("POST", "/enqueue", items, headers={"Idempotency-Key": "k"})
    assert (reply.status, reply.body["item"], reply.body["field"]) == (400, 1, "idempotency_key")
    reply = http.call("POST", "/enqueue", items[:1], headers={"Idempotency-Key": '""'})
    assert (reply.status, reply.body["field"]) == (400, "Idempotency-Key")
    assert http.get() == []


def test_one_refused_key_refuses_the_request(http: Http) -> None:
    http.put(b"pay", idempotency_key="k")
    items = [{**http.name, "payload": "eA=="}, {**http.name, "payload": "eA==", "idempotency_key": "k"}]
    reply = http.call("POST", "/enqueue", items)
    assert (reply.status, reply.body["code"], reply.body["item"]) == (422, "key-reused", 1)
    assert len(http.get()) == 1


def test_the_same_key_twice_in_one_request(http: Http) -> None:
    ids = http.good(http.call("POST", "/enqueue", [{**http.name, "payload": "eA==", "idempotency_key": "k"}] * 2))
    assert ids[0] == ids[1]
    assert len(http.get()) == 1


def _refuses_another_body(http: Http) -> None:
    reply = http.call("POST", "/enqueue", [{**http.name, "payload": "eA==", "idempotency_key": "k"}])
    assert (reply.status, reply.body["code"]) == (422, "key-reused")


def test_a_quota_refuses_what_is_above_it(broker: Broker) -> None:
    http = Http(broker.url, broker.token, namespace="small")
    replies = [http.call("POST", "/enqueue", [{**http.name}]) for _ in range(2 * QUOTA + 1)]  # a window may end meanwhile
    statuses = [reply.status for reply in replies]
    assert statuses[:QUOTA] == [200] * QUOTA
    assert 429 in statuses
    refused = replies[statuses.index(429)]
    assert refused.body["code"] == "quota-exceeded"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert len(http.get(limit=100)) == statuses.count(200)


# -- failure -----------------------------------------------------------------------------------------------------------


def test_the_last_failure_makes_a_dead_letter_at_once(http: Http) -> None:
    (id,) = http.put(b"bad", max_retries=1)
    for attempt in (1, 2):
        (message,) = http.get(wait=5)
        assert message["attempt"] == attempt
        assert http.nack(message, error=f"failure {attempt}", retry_after=0).body["status"] == "ok"
    (dead,) = http.dead()
    assert (dead["id"], dead["attempts"], dead["error"], dead["payload"]) == (id, 2, "failure 2", "YmFk")
    assert http.status(id).body["state"] == "dead"
    assert http.stats()["dead"] == 1
    assert http.get() == []


def test_a_worker_that_dies_each_time_ends_in_the_dead_letters(http: Http) -> None:
    (id,) = http.put(max_retries=1)
    for attempt in (1, 2):
        assert [m["attempt"] for m in http.get(wait=5, lease=0.1)] == [attempt]
    (dead,) = wait_until(http.dead, "dead")
    assert dead["id"] == id
    assert "lease" in dead["error"]


@pytest.mark.parametrize("flushed", [False, True])
def test_deleting_dead_letters(http: Http, broker: Broker, flushed: bool) -> None:
    ids = http.put(b"1", b"2", b"3", max_retries=0)
    for message in http.get():
        http.nack(message, error="no")
    assert [d["id"] for d in http.dead()] == ids
    if flushed:
        count = "SELECT count(*) FROM dead_letters WHERE topic = %s"
        wait_until(lambda: broker.sql(count, [http.name["topic"]]) == [(3,)], "flushed")
        assert [d["id"] for d in http.dead()] == ids
    assert http.call("POST", "/dlq/delete", {**http.name, "id": ids[0]}).body == {"id": ids[0], "status": "ok"}
    several = http.call("POST", "/dlq/delete", [{**http.name, "id": id} for id in ids[:2]])
    assert [v["status"] for v in several.body] == ["gone", "ok"]
    assert [d["id"] for d in http.dead()] == ids[2:]
    assert http.call("POST", "/ack", {**http.name, "id": ids[2]}).body.get("status") != "ok"


# -- waiting, seeing ---------------------------------------------------------------------------------------------------


def test_a_waiting_fetch_wakes_at_once(http: Http, broker: Broker) -> None:
    late = []
    for _ in range(5):
        came: list[tuple[float, list[dict[str, object]]]] = []

        def wait(came: list[tuple[float, list[dict[str, object]]]] = came) -> None:
            messages = http.get(wait=10)
            came.append((time.monotonic(), messages))

        waiter = threading.Thread(target=wait)
        waiter.start()
        wait_until(lambda: broker.metric("mqueue_waiting_fetches") == 1, "it waits")
        (id,) = http.put()
        put_at = time.monotonic()
        waiter.join(20)
        assert [m["id"] for m in came[0][1]] == [id]
        late.append(came[0][0] - put_at)
    assert sorted(late)[2] < 0.05, late


def test_each_waiter_gets_its_message_at_once(http: Http, broker: Broker) -> None:
    got: list[tuple[int, float]] = []

    def wait() -> None:
        got.extend((m["id"], time.monotonic()) for m in http.get(limit=1, wait=10))

    waiters = [threading.Thread(target=wait) for _ in range(5)]
    for waiter in waiters:
        waiter.start()
    wait_until(lambda: broker.metric("mqueue_waiting_fetches") == len(waiters), "all wait")
    ids = [http.put()[0] for _ in waiters]
    put_at = time.monotonic()
    for waiter in waiters:
        waiter.join(20)
    assert sorted(id for id, _ in got) == sorted(ids)
    assert max(at for _, at in got) - put_at < 1.0, got  # well below the look that makes up for a lost word


def test_the_numbers_of_a_topic(http: Http) -> None:
    http.put(*[b"x"] * 5)
    http.put(delay=20)  # near enough to be in Redis
    leased = http.get(limit=2)
    stats = http.stats()
    assert (stats["ready"], stats["delayed"], stats["leased"], stats["dead"]) == (3, 1, 2, 0)
    assert stats["waiting"] == 4
    http.ack(leased[0])
    http.nack(leased[1], retry_after=20)
    ledger = {"enqueued": 6, "acked": 1, "dead": 0, "expired": 0, "purged": 0, "cancelled": 0}
    wait_until(lambda: http.stats()["counters"] == ledger, "ledger")
    stats = http.stats()
    assert (stats["ready"], stats["delayed"], stats["leased"], stats["waiting"]) == (3, 2, 0, 5)


def test_the_state_of_a_message(http: Http) -> None:
    assert http.get() == []  # the topic is open
    (id,) = http.put(b"look", priority=7, metadata={"a": [1]}, max_retries=2)
    seen = http.status(id).body
    assert (seen["state"], seen["priority"], seen["attempts"], seen["payload"], seen["metadata"]) == ("ready", 7, 0, "bG9vaw==", {"a": [1]})
    (message,) = http.get()
    assert http.status(id).body["state"] == "leased"
    http.nack(message, error="why", retry_after=20)
    seen = http.status(id).body
    assert (seen["state"], seen["attempts"], seen["error"]) == ("delayed", 1, "why")
    assert http.status(12345).status == 404


def test_a_release_does_not_count(http: Http) -> None:
    http.put()
    (message,) = http.get()
    settle = {**http.name, "id": message["id"], "receipt": message["receipt"], "kind": "release"}
    assert http.call("POST", "/poll", {"settle": [settle]}).body["verdicts"] == [{"id": message["id"], "status": "ok"}]
    assert [m["attempt"] for m in http.get()] == [1]


def test_the_views_for_people(http: Http, broker: Broker) -> None:
    topic = http.name["topic"]
    alive, dying = http.put(b"alive", priority=1) + http.put(b"dying", max_retries=0)
    (message,) = http.get(limit=1)
    http.nack(message, error="too old")
    wait_until(lambda: broker.sql("SELECT pending, dead_letters FROM topic_stats WHERE topic = %s", [topic]) == [(1, 1)], "flushed")
    assert broker.sql("SELECT id, priority, payload FROM pending_messages WHERE topic = %s", [topic]) == [(alive, 1, "alive")]
    assert broker.sql("SELECT id, error, payload FROM dead_letters WHERE topic = %s", [topic]) == [(dying, "too old", "dying")]


# -- polls that wait ---------------------------------------------------------------------------------------------------


async def test_a_poll_ended_amid_an_enqueue_costs_no_attempt(broker: Broker) -> None:
    topic, chance = f"t-{uuid.uuid4().hex}", random.Random(7)
    async with AsyncClient(broker.url, broker.token) as client:
        idle = asyncio.create_task(client.poll(wire.Poll(topics=[topic], limit=1, wait=30, name="idle")))
        await until(lambda: asyncio.to_thread(broker.metric, "mqueue_waiting_fetches"), "it waits", enough=lambda count: count == 1)
        await client.poll(wire.Poll(namespace="another", end=["idle"]))
        await client.poll(wire.Poll(end=["nobody"]))
        assert not idle.done()
        async with asyncio.timeout(20):
            while not idle.done():
                await client.poll(wire.Poll(end=["idle"]))
        assert idle.result().messages == []
        brought = 0
        for _ in range(60):
            name = uuid.uuid4().hex
            waiting = asyncio.create_task(client.poll(wire.Poll(topics=[topic], limit=1, wait=30, name=name)))
            await asyncio.sleep(0.002)  # long enough for it to wait, mostly
            ids = asyncio.create_task(client.enqueue(topic, b""))
            await asyncio.sleep(chance.random() * 0.004)  # the two should meet at any moment
            while not waiting.done():
                await client.poll(wire.Poll(end=[name]))
            messages = waiting.result().messages
            brought += len(messages)
            messages = messages or (await client.poll(wire.Poll(topics=[topic], limit=1, wait=5))).messages
            assert [(message.id, message.attempt) for message in messages] == [(await ids, 1)]
            await client.ack(messages)
        assert brought, "the two never met"
