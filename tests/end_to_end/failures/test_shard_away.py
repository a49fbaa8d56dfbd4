"""One shard of two is away: its database takes no connection, and its Redis has forgotten it. The other one is served
as if nothing were.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

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
            assert http.status(1).status == 503, "nobody knows: it may be in the shard that is away"


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
