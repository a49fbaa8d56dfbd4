"""One shard of two is away: its database takes no connection, and its Redis has forgotten it. The other one is served
as if nothing were.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from mqueue.broker.cache import keys
from mqueue.broker.slots import slot
from mqueue.message import TopicName
from tests.processes.api import Http
from tests.processes.broker import Broker, asleep
from tests.processes.stores import Stores
from tests.waiting import wait_until

MISSING = "Mqueue-Missing-Shards"
TOPICS = [next(f"t{n}" for n in range(100) if slot(TopicName("default", f"t{n}")) % 2 == shard) for shard in (0, 1)]
SLOW_S = 1.0  # an answer that waited for the shard that is away takes 2 s at least


@pytest.fixture
def stores(data_dir: Path) -> Iterator[Stores]:
    stores = Stores(data_dir, shards=2)
    yield stores
    stores.close()


@contextmanager
def away(stores: Stores, shard: int) -> Iterator[None]:
    """No connection to this shard's database, and nothing of it in Redis."""
    other = stores.urls.database_urls[1 - shard]
    name = f"mqueue_{shard}"
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        with redis.Redis(unix_socket_path=stores.urls.redis_addrs[0].removeprefix("unix://"), password=stores.urls.redis_password) as client:
            for key in client.scan_iter(f"{{mq{shard}}}*"):
                client.delete(key)
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


def both(http: Http, **query: object) -> tuple[list[dict[str, object]], str | None, float]:
    """Fetches from both topics: the messages, what is missing, and how long it took."""
    began = time.monotonic()
    reply = http.call("GET", "/dequeue", query=[("topic", TOPICS[0]), ("topic", TOPICS[1]), *query.items()], timeout=60)
    assert reply.status == 200, reply
    return reply.body, reply.headers[MISSING], time.monotonic() - began


def gone(broker: Broker, shard: int) -> None:
    """Waits until the broker has seen it: where its leader lost PostgreSQL first, only a request looks at Redis."""
    http = Http(broker.url, broker.token, TOPICS[shard])
    assert http.call("GET", "/dequeue", query=http.name).status == 503
    wait_until(lambda: http.call("GET", "/ready").body["shards"][shard]["mode"] == "recovering", "the shard is seen to be away")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_fetch_over_both_shards_answers_with_what_the_healthy_one_has(stores: Stores, lost: int) -> None:
    with Broker(env=stores.environment()) as broker:
        there, away_topic = TOPICS[1 - lost], TOPICS[lost]
        http = Http(broker.url, broker.token, there)
        with away(stores, lost):
            gone(broker, lost)
            for _ in range(12):
                [id] = http.put(b"x", max_retries=0, lease=1.5)
                [message], missing, took = both(http, limit=10)
                assert (message["id"], missing, took < SLOW_S) == (id, str(lost), True), (missing, took)
                assert http.ack(message).body["status"] == "ok"
            assert Http(broker.url, broker.token, away_topic).call("GET", "/dequeue", query={"topic": away_topic}).status == 503
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(both, http, limit=2, wait=20)
                wait_until(lambda: broker.metric("mqueue_waiting_fetches") == 1, "it waits")
                [id] = http.put(b"later")
                [message], missing, _ = waiting.result(30)
                assert (message["id"], missing) == (id, str(lost))


def test_a_renewal_of_leases_in_both_shards_renews_those_of_the_healthy_one(stores: Stores) -> None:
    with Broker(env=stores.environment()) as broker:
        clients = [Http(broker.url, broker.token, topic) for topic in TOPICS]
        for http in clients:
            http.put(b"x", lease=30)
        held: list[dict[str, Any]] = []
        for http in clients:
            held += [{**http.name, "id": m["id"], "receipt": m["receipt"], "lease": 600} for m in http.get()]
        with away(stores, 0):
            gone(broker, 0)
            began = time.monotonic()
            assert clients[1].call("POST", "/extend", held).status == 503
            assert time.monotonic() - began < 3 * SLOW_S
            # the answer did not wait for the renewal, which is on its way
            wait_until(lambda: leased_s(stores, held[1]["id"]) > 300, "the lease is renewed", 5)


def leased_s(stores: Stores, id: int) -> float:
    """Seconds for which the second shard's Redis has this message leased still."""
    with redis.Redis(unix_socket_path=stores.urls.redis_addrs[0].removeprefix("unix://"), password=stores.urls.redis_password) as client:
        until_us = client.zscore(keys.leases(1), id.to_bytes(8))
        assert until_us is not None
        return until_us / 1e6 - time.time()


def test_views_answer_from_the_healthy_shard(stores: Stores) -> None:
    with Broker(env=stores.environment()) as broker:
        http = Http(broker.url, broker.token, TOPICS[1])
        [id] = http.put(b"x")
        [done] = http.put(b"y", priority=-1)
        [message] = http.get(limit=1)
        http.ack(message, result="eA==")
        Http(broker.url, broker.token, TOPICS[0]).put(b"z")
        with away(stores, 0):
            gone(broker, 0)
            began = time.monotonic()
            assert http.status(id).body["state"] == "ready"
            assert http.call("GET", f"/messages/{done}/result", query=http.name).status == 200
            assert http.call("GET", f"/messages/{id}/result", query=http.name).body["code"] == "pending"
            assert time.monotonic() - began < 3 * SLOW_S
            reply = http.call("GET", "/topics")
            assert reply.status == 200
            assert ([t["topic"] for t in reply.body], reply.headers[MISSING]) == ([TOPICS[1]], "0")
            unknown = http.status(1)
            assert (unknown.status, "shard 0" in unknown.body["detail"]) == (503, True), "it may be in the shard that is away"
            assert http.call("GET", "/messages/1", query=http.name).status == 404, "it would be in the other"
            assert http.call("GET", f"/messages/{id}", query=http.name).body["state"] == "ready"
            assert http.call("GET", "/messages/1/result", query=http.name).body["code"] == "not-found"
            assert http.call("POST", f"/messages/{id}/cancel").body["status"] == "cancelled"


def test_a_broker_that_was_frozen_leases_to_nobody_that_has_hung_up(stores: Stores) -> None:
    with Broker(env=stores.environment()) as broker:
        http = Http(broker.url, broker.token, TOPICS[0])
        http.put(b"first")
        http.ack(http.get()[0])  # the topic is open: nothing stands between a fetch and its lease
        ids = http.put(*[b"x"] * 5, max_retries=0)
        with asleep(broker), ThreadPoolExecutor(5) as pool:
            for hung_up in [pool.submit(http.call, "GET", "/dequeue", query={**http.name, "limit": 1}, timeout=0.5) for _ in ids]:
                with pytest.raises(OSError, match="timed out"):
                    hung_up.result(30)
        got: list[dict[str, object]] = []
        wait_until(lambda: got.extend(http.get()) or len(got) == 5, "nothing is leased for nobody")
        assert sorted((m["id"], m["attempt"]) for m in got) == [(id, 1) for id in ids]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_broker_starts_and_serves_what_it_can(stores: Stores, lost: int) -> None:
    with Broker(env=stores.environment()) as broker:
        there, here = (Http(broker.url, broker.token, TOPICS[shard]) for shard in (lost, 1 - lost))
        kept = there.put(b"kept")
        broker.stop()
        with away(stores, lost):
            broker.start()
            there.url = here.url = broker.url
            there.token = here.token = broker.token
            ids = here.put(b"1", b"2")
            assert [m["id"] for m in here.get()] == ids
            reply = there.call("POST", "/enqueue", [{**there.name, "payload": "eA=="}])
            assert (reply.status, reply.headers["Retry-After"] is not None) == (503, True)
            ready = here.call("GET", "/ready")
            assert (ready.status, [shard["mode"] for shard in ready.body["shards"]].index("recovering")) == (503, lost)
            assert ready.body["shards"][lost]["postgres"] != "ok"
        got = wait_until(
            lambda: there.call("GET", "/dequeue", query=there.name), "it is there", 60, enough=lambda r: r.status == 200 and r.body
        )
        assert [m["id"] for m in got.body] == kept
        assert there.put(b"more")[0] > ids[-1]
        assert wait_until(lambda: here.call("GET", "/ready").status == 200, "all is ready")


def test_a_new_broker_needs_the_first_shard_and_says_so(stores: Stores) -> None:
    with Broker(env=stores.environment()):
        pass
    with away(stores, 0), closing(Broker(env=stores.environment())) as new:
        with pytest.raises(AssertionError, match="the broker is not ready"):
            new.start()
        assert "Traceback" not in new.last_words()
        assert "shard 0" in new.last_words()


def test_where_no_shard_is_there_the_broker_says_so_and_ends(stores: Stores) -> None:
    with Broker(env=stores.environment()) as broker:
        broker.stop()
        with stores.without("postgresql"), pytest.raises(AssertionError, match="the broker is not ready"):
            broker.start()
        assert "run this again once it is mended" in broker.last_words()
        assert "Traceback" not in broker.last_words()
        broker._taken()
