"""Two brokers on the same stores: any of them serves any request; either may die, and the other goes on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.processes.api import Http
from tests.processes.broker import Broker, asleep
from tests.processes.stores import Stores
from tests.waiting import wait_until


@pytest.fixture
def pair(stores: Stores, request: pytest.FixtureRequest) -> Iterator[tuple[Broker, Broker]]:
    """The first leads. A parameter: settings of both."""
    env = stores.environment(**getattr(request, "param", {}))
    with Broker(env=env) as first:
        wait_until(lambda: first.metric("mqueue_leader") == 1, "the first leads")
        with Broker(env=env) as second:
            yield first, second


def clients(*brokers: Broker) -> list[Http]:
    return [Http(broker.url, broker.token) for broker in brokers]


def test_any_broker_serves_any_request(pair: tuple[Broker, Broker]) -> None:
    a, b = clients(*pair)
    ids = a.put(b"1", priority=2) + b.put(b"2", priority=1) + a.put(b"3", priority=3)
    got = b.get()
    assert [m["id"] for m in got] == [ids[1], ids[0], ids[2]]
    assert [a.ack(m).body["status"] for m in got] == ["ok"] * 3
    assert a.get() == b.get() == []
    (again,) = a.put(b"pay", idempotency_key="k")
    assert b.put(b"pay", idempotency_key="k") == [again]
    header = {"Idempotency-Key": "a request"}
    items = [{**a.name, "payload": "eA=="}] * 5
    assert a.good(a.call("POST", "/enqueue", items, headers=header)) == b.good(b.call("POST", "/enqueue", items, headers=header))


def test_a_fetch_that_waits_is_woken_by_the_other_broker(pair: tuple[Broker, Broker]) -> None:
    a, b = clients(*pair)
    with ThreadPoolExecutor(1) as pool:
        for waits, sends, asked in ((a, b, pair[0]), (b, a, pair[1])):
            waiting = pool.submit(waits.get, wait=20)
            wait_until(lambda asked=asked: asked.metric("mqueue_waiting_fetches") == 1, "it waits")
            began = time.monotonic()
            (id,) = sends.put(b"now")
            (message,) = waiting.result(20)
            assert message["id"] == id
            assert time.monotonic() - began < 1.2, "woken, and not found by the look that comes every 1.5 s"
            waits.ack(message)


def test_where_the_leader_dies_the_other_leads_and_flushes_what_it_took(pair: tuple[Broker, Broker], stores: Stores) -> None:
    first, second = pair
    a, b = clients(*pair)
    ids = [id for _ in range(20) for id in a.put(*[b"x"] * 50) + b.put(*[b"y"] * 50)]
    first.kill()
    wait_until(lambda: second.metric("mqueue_leader") == 1, "the second leads")
    ids += b.put(*[b"z"] * 50)
    wait_until(lambda: stores.rows() == len(ids), "all are flushed")
    got = [m["id"] for _ in range(3) for m in b.get(limit=1000)]
    assert sorted(got) == sorted(ids)
    assert got == sorted(got, key=ids.index)  # one priority: as they came


def test_a_leader_that_hangs_loses_its_lock_and_changes_nothing_when_it_wakes(pair: tuple[Broker, Broker], stores: Stores) -> None:
    first, second = pair
    a, b = clients(*pair)
    ids = a.put(*[b"x"] * 20)
    with asleep(first):
        wait_until(lambda: second.metric("mqueue_leader") == 1, "the second leads", 12)
        ids += b.put(*[b"y"] * 20)
        got = b.get(limit=10)
        assert [b.ack(m).body["status"] for m in got] == ["ok"] * 10
    wait_until(lambda: first.metric("mqueue_leader") == 0, "the first knows")
    got += [m for http in (a, b) for m in http.get(limit=15)]
    assert [m["id"] for m in got] == ids
    assert a.get() == b.get() == []


@pytest.mark.parametrize("pair", [{"MQUEUE_FLUSH_AGE_MS": "60000"}], indirect=True)
def test_a_broker_that_comes_back_late_brings_what_only_its_log_has(pair: tuple[Broker, Broker], stores: Stores) -> None:
    """It dies with messages that no flush has seen; Redis loses them; the epoch closes without it."""
    first, second = pair
    a, b = clients(*pair)
    kept = a.put(*[b"a"] * 10)
    late = b.put(*[b"b"] * 10)
    [done] = b.get(limit=1)
    b.ack(done)
    second.kill()
    stores.flush_redis()
    wait_until(lambda: first.metric("mqueue_epoch") >= 2, "a new epoch", 20)
    got = wait_until(lambda: a.get(limit=100), "it serves again", 20)
    assert {m["id"] for m in got} - {done["id"]} == set(kept) - {done["id"]}
    looks = ("GET", f"/messages/{late[0]}"), ("GET", f"/messages/{late[0]}/result"), ("POST", f"/messages/{late[0]}/cancel")
    assert [a.call(*look).status for look in looks] == [503] * 3, "its log may have it"
    second.start()
    (b,) = clients(second)
    brought = wait_until(lambda: a.get(limit=100), "what the late broker brought", 20)
    assert [m["id"] for m in brought] == late
    assert [m["payload"] for m in brought] == ["Yg=="] * 10
    assert b.put(b"more")
    assert len(a.get()) == 1


@pytest.mark.parametrize("pair", [{"MQUEUE_FLUSH_AGE_MS": "60000"}], indirect=True)
def test_the_acks_of_a_broker_that_was_silent_stay_when_the_epoch_closes(pair: tuple[Broker, Broker], stores: Stores) -> None:
    """As all brokers are while PostgreSQL is away. Only its log has them, and it is back a second after the loss of
    Redis.
    """
    first, second = pair
    a, b = clients(*pair)
    ids = a.put(*[b"x"] * 20)
    assert [b.ack(m).body["status"] for m in b.get(limit=10)] == ["ok"] * 10
    epoch = first.metric("mqueue_epoch")
    with asleep(second):
        time.sleep(3.5)  # silent for longer than one that lives is otherwise
        stores.flush_redis()
        time.sleep(1.0)  # it is back a second after the loss
    wait_until(lambda: all(x.metric("mqueue_epoch") > epoch and x.metric("mqueue_shard_health") == 1 for x in pair), "a new epoch", 20)
    assert [m["id"] for m in a.get(limit=100)] == ids[10:]


def test_a_long_lease_is_known_again_after_redis_lost_it(pair: tuple[Broker, Broker], stores: Stores) -> None:
    a, b = clients(*pair)
    a.put(b"short", b"long")
    [short] = a.get(limit=1, lease=30)
    [long] = b.get(limit=1, lease=30)
    wait_until(lambda: sum(broker.metric("mqueue_mirrored_leases") for broker in pair) == 2, "both are mirrored", 15)
    assert a.ack(short).body["status"] == "ok"
    epoch = pair[0].metric("mqueue_epoch")
    stores.flush_redis()
    wait_until(lambda: pair[0].metric("mqueue_epoch") > epoch and pair[0].metric("mqueue_shard_health") == 1, "a new epoch", 15)
    assert a.get() == [], "it is leased"
    assert a.settle("/extend", long, lease=20).body["status"] == "ok"
    assert b.ack(long).body["status"] == "ok"
    assert b.get() == []


def test_a_second_broker_is_one_command() -> None:
    with Broker() as first:
        a = Http(first.url, first.token)
        ids = a.put(b"1", b"2")
        with Broker("--join", str(first.data_dir), own_data_dir=False) as second:
            b = Http(second.url, first.token)
            got = b.get(limit=1)
            assert got[0]["id"] == ids[0]
            assert a.ack(got[0]).body["status"] == "ok"
            assert second.stop() == 0
        assert [m["id"] for m in a.get()] == ids[1:], "the stores are the first one's"
        with Broker("--join", str(first.data_dir), own_data_dir=False) as third:
            assert Http(third.url, first.token).put(b"3")
            assert (first.data_dir / "joined" / "1").is_dir()
            assert not (first.data_dir / "joined" / "2").exists(), "it takes the folder that is free"


def test_who_joins_has_the_same_secret() -> None:
    """JWT_SECRET where that is set; where only the first broker knows it, none is made up."""
    secret = {"JWT_SECRET": "a secret of both, of 32 bytes or more"}
    with Broker(env=secret) as first:
        with Broker("--join", str(first.data_dir), own_data_dir=False, env=secret) as second:
            assert Http(second.url, first.token).put(b"1")
        command = [sys.executable, "-m", "mqueue.cli", "broker", "--join", str(first.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=Broker.environment({}), cwd=first.home)
        assert done.returncode == 78 and "JWT_SECRET is not set" in done.stderr


def test_nobody_joins_where_no_broker_runs(data_dir: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "mqueue.cli", "broker", "--join", str(data_dir)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"no broker runs on the data dir {data_dir}" in done.stderr


@pytest.mark.parametrize("pair", [{"MQUEUE_FLUSH_AGE_MS": "60000"}], indirect=True)
def test_the_key_of_an_unflushed_request_outlives_the_epoch(pair: tuple[Broker, Broker], stores: Stores) -> None:
    a, b = clients(*pair)
    header = {"Idempotency-Key": "a request"}
    items = [{**a.name, "payload": "eA=="}] * 5
    ids = a.good(a.call("POST", "/enqueue", items, headers=header))
    epoch = pair[0].metric("mqueue_epoch")
    stores.flush_redis()
    wait_until(lambda: all(x.metric("mqueue_epoch") > epoch and x.metric("mqueue_shard_health") == 1 for x in pair), "a new epoch", 15)
    for http in (b, a):
        assert http.good(http.call("POST", "/enqueue", items, headers=header)) == ids
    assert [m["id"] for m in b.get(limit=100)] == ids


def test_another_timeline_closes_the_epoch(pair: tuple[Broker, Broker], stores: Stores) -> None:
    """As after the promotion of a replica: the server that answers is not in the timeline in which the epoch was
    opened.
    """
    a, b = clients(*pair)
    ids = a.put(*[b"x"] * 20)
    epoch = pair[0].metric("mqueue_epoch")
    with psycopg.connect(stores.urls.database_urls[0], autocommit=True) as connection:
        connection.execute("UPDATE shard SET timeline = timeline + 1")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mqueue leader'")
    wait_until(lambda: all(x.metric("mqueue_epoch") > epoch and x.metric("mqueue_shard_health") == 1 for x in pair), "a new epoch", 15)
    assert [m["id"] for m in b.get(limit=100)] == ids
