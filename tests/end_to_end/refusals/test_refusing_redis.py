"""A Redis that answers and refuses: full, or without writes. Nothing acknowledged is lost, and somebody serves."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest
import redis

from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.waiting import wait_until

SOON_S = 30.0
FULL_S = 10.0
MET = 20  # scripts: of the tick, which comes every 20 ms, and of the looks
READ_ONLY = ("REPLICAOF", "127.0.0.1", "1")  # of a master that is not there: it keeps what it has


@pytest.fixture
def valkey(stores: Stores) -> Iterator["redis.Redis"]:
    with redis.Redis(unix_socket_path=stores.urls.redis_addrs[0].removeprefix("unix://"), password=stores.urls.redis_password) as client:
        yield client


@pytest.fixture
def one(stores: Stores) -> Iterator[Broker]:
    with Broker(env=stores.environment()) as broker:
        wait_until(lambda: broker.metric("mqueue_leader") == 1, "it leads")
        yield broker


@pytest.fixture
def pair(stores: Stores, one: Broker) -> Iterator[tuple[Broker, Broker]]:
    with Broker(env=stores.environment()) as other:
        yield one, other


@contextmanager
def full(valkey: "redis.Redis") -> Iterator[None]:
    """Less memory is allowed meanwhile than is used."""
    valkey.config_set("maxmemory", 1)
    try:
        yield
    finally:
        valkey.config_set("maxmemory", 0)


@contextmanager
def read_only(valkey: "redis.Redis") -> Iterator[None]:
    valkey.execute_command(*READ_ONLY)
    try:
        yield
    finally:
        valkey.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def without_replicas(valkey: "redis.Redis") -> Iterator[None]:
    """It wants one before it takes a write."""
    valkey.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        valkey.config_set("min-replicas-to-write", 0)


@contextmanager
def slow(valkey: "redis.Redis") -> Iterator[None]:
    """It answers a PING, and nobody who writes."""
    valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
    try:
        yield
    finally:
        valkey.execute_command("CLIENT", "UNPAUSE")


@contextmanager
def behind_a_script(valkey: "redis.Redis") -> Iterator[None]:
    """Somebody's script runs for ever."""
    valkey.config_set("busy-reply-threshold", 100)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(valkey.eval, "while true do end", 0)
        try:
            yield
        finally:
            wait_until(lambda: valkey.execute_command("SCRIPT", "KILL"), "it is killed", despite=redis.RedisError)
            assert isinstance(running.exception(), redis.ResponseError)


def client(broker: Broker) -> Http:
    return Http(broker.url, broker.token)


def scripts_run(valkey: "redis.Redis") -> int:
    """Those that were refused count, too."""
    return int(valkey.info("commandstats")["cmdstat_fcall"]["calls"])


def serves(broker: Broker, mode: str) -> bool:
    ready = client(broker).call("GET", "/ready")
    return ready.status == 200 and [shard["mode"] for shard in ready.body["shards"]] == [mode]


@pytest.mark.parametrize("refusing", [read_only, without_replicas, slow, behind_a_script], ids=lambda way: way.__name__)
def test_brokers_whose_redis_takes_no_writes_go_cold_and_come_back(
    pair: tuple[Broker, Broker], valkey: "redis.Redis", refusing: Callable[["redis.Redis"], AbstractContextManager[None]]
) -> None:
    a, b = map(client, pair)
    ids = a.put(*[b"x"] * 10) + b.put(*[b"y"] * 10)
    [first] = a.get(limit=1)
    with refusing(valkey):
        wait_until(lambda: all(serves(broker, "cold") for broker in pair), "PostgreSQL serves", SOON_S)
        ids += b.put(b"z")
        got = a.get(limit=5) + b.get(limit=5)
        assert [b.ack(m).body["status"] for m in got] == ["ok"] * 10
    wait_until(lambda: all(serves(broker, "hot") for broker in pair), "Redis serves", SOON_S)
    got += a.get(limit=100)
    assert {m["id"] for m in got} | {first["id"]} == set(ids)


def test_ready_says_at_once_that_redis_takes_no_writes(one: Broker, valkey: "redis.Redis") -> None:
    http = client(one)
    assert serves(one, "hot")
    with read_only(valkey):
        told = wait_until(lambda: http.call("GET", "/ready"), "not ready", SOON_S, enough=lambda told: told.status == 503)
        assert told.body["shards"][0]["redis"] == "read-only"
        wait_until(lambda: serves(one, "cold"), "PostgreSQL serves", SOON_S)


def test_a_moment_of_a_full_redis_takes_no_lease(one: Broker, valkey: "redis.Redis") -> None:
    http = client(one)
    http.put(*[b"x"] * 10)
    [running] = http.get(limit=1, lease=30)
    epoch = one.metric("mqueue_epoch")
    with full(valkey):
        before = scripts_run(valkey)
        wait_until(lambda: scripts_run(valkey) > before + MET, "leader and broker have met it")
    assert http.ack(running).body["status"] == "ok"
    assert one.metric("mqueue_epoch") == epoch


def test_a_full_redis_serves_all_but_what_is_new(one: Broker, valkey: "redis.Redis", stores: Stores) -> None:
    http = client(one)
    idle = Http(one.url, one.token, topic="idle")
    ids = http.put(*[b"x"] * 200)
    [running] = http.get(limit=1, lease=3)
    epoch, done = one.metric("mqueue_epoch"), [running["id"]]
    with full(valkey):
        until = time.monotonic() + FULL_S
        while time.monotonic() < until:
            assert http.settle("/extend", running, lease=3).body["status"] == "ok"
            [message] = http.get(limit=1)
            assert http.ack(message).body["status"] == "ok"
            done.append(message["id"])
            refused = http.call("POST", "/enqueue", [{**http.name, "payload": "eA=="}])
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert "full" in refused.body["detail"]
            assert idle.get(wait=0.1) == [], "a topic of which there is nothing"
        shard = wait_until(lambda: http.call("GET", "/ready").body["shards"][0], "it tells", enough=lambda shard: shard["redis"] == "full")
        assert shard["mode"] == "hot"
        wait_until(lambda: stores.rows() > 0, "the flush goes on")
    ids += wait_until(lambda: http.put(b"y"), "it takes new ones", despite=AssertionError)
    assert http.ack(running).body["status"] == "ok"
    assert one.metric("mqueue_epoch") == epoch
    assert [m["id"] for m in http.get(limit=1000)] == [id for id in ids if id not in done], "refused ones are not there"
