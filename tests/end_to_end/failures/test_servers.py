"""The same broker on every kind of server it promises to run on: the embedded ones here, containers where a Docker
engine answers.
"""

import asyncio
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mqueue.broker.embedded import StoreUrls
from mqueue.broker.embedded.binaries import find_valkey
from tests.campaigns import kill, order
from tests.campaigns.judging.history import judge
from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores, environment
from tests.waiting import wait_until

SHARDS = 2


@contextmanager
def embedded(data_dir: Path) -> Iterator[StoreUrls]:
    stores = Stores(data_dir, SHARDS)
    try:
        yield stores.urls
    finally:
        stores.close()


@contextmanager
def over_tcp(data_dir: Path) -> Iterator[StoreUrls]:
    """As most people run it: a Valkey on a port, with a password, one for all shards."""
    with embedded(data_dir) as urls, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        server = subprocess.Popen([find_valkey(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert server.stdin is not None
        with server.stdin as settings:
            settings.write(f'port {port}\nbind 127.0.0.1\nrequirepass of-this-test\nsave ""\n'.encode())
        try:
            wait_until(lambda: _answers(port), "Valkey listens")
            yield StoreUrls(urls.database_urls, (f"127.0.0.1:{port}",), "of-this-test")
        finally:
            server.kill()
            server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def containers(postgres: str, redis: str) -> Iterator[StoreUrls]:
    """One PostgreSQL per shard, one Redis."""
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    with ExitStack() as running:
        databases = [running.enter_context(PostgresContainer(postgres, driver=None)) for _ in range(SHARDS)]
        cache = running.enter_context(RedisContainer(redis, password="of-this-test"))
        address = f"{cache.get_container_host_ip()}:{cache.get_exposed_port(6379)}"
        yield StoreUrls(tuple(db.get_connection_url() for db in databases), (address,), "of-this-test")


@pytest.fixture(
    params=[
        "embedded",
        "over TCP",
        pytest.param(("postgres:18", "redis:8"), marks=pytest.mark.docker),
        pytest.param(("postgres:16", "valkey/valkey:9"), marks=pytest.mark.docker),
    ]
)
def urls(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[StoreUrls]:
    here = {"embedded": embedded, "over TCP": over_tcp}
    with here[request.param](data_dir) if isinstance(request.param, str) else containers(*request.param) as urls:
        yield urls


def test_order_and_a_killed_broker_over_two_shards(urls: StoreUrls) -> None:
    env = environment(urls) | {"MQUEUE_READY_MAX": str(order.READY_MAX)}
    with tempfile.TemporaryDirectory() as log, Broker(env=env | {"WAL_DIR": log}) as broker:
        verdict = judge(asyncio.run(order.run(order.Campaign(3_000, timeout_s=60), broker.url, broker.token)))
        assert verdict.good(), verdict.counts()
        ledger = asyncio.run(kill.run(broker, rounds=2))
        assert ledger.good() and ledger.enqueued
        assert broker.stop() == 0


def test_verify_says_that_the_ledger_adds_up_and_where_it_does_not() -> None:
    with Broker("--shards", "2") as broker:
        for topic in ("t1", "t2", "t3"):
            http = Http(broker.url, broker.token, topic)
            http.put(*[b"x"] * 20)
            http.ack(http.get(limit=1)[0])
            wait_until(lambda http=http: http.stats()["counters"].get("enqueued") == 20, "flushed")
        command = [sys.executable, "-m", "mqueue.cli", "verify", "--data-dir", str(broker.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, env=Broker.environment({}), check=False)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 4
        shard = http.stats()["shard"]
        broker.sql(
            "DELETE FROM message WHERE id = (SELECT min(m.id) FROM message m JOIN topic t ON t.id = topic_id AND t.name = 't3') RETURNING id",
            shard=shard,
        )
        done = subprocess.run(command, capture_output=True, text=True, env=Broker.environment({}), check=False)
        assert done.returncode == 1
        assert "does not add up" in done.stderr
        [bad] = [line for line in done.stdout.splitlines()[1:] if not line.endswith(" 0")]
        assert bad.split()[0] == "default/t3" and bad.split()[-1] == "1"


def test_another_number_of_shards_is_refused_and_changes_nothing() -> None:
    with Broker() as broker:
        [id] = Http(broker.url, broker.token).put(b"x")
        assert broker.stop() == 0
        command = [sys.executable, "-m", "mqueue.cli", "broker", "--data-dir", str(broker.data_dir), "--shards", "2"]
        more = subprocess.run(command, capture_output=True, text=True, env=Broker.environment({}), check=False, timeout=60)
        assert (more.returncode, "Traceback" in more.stderr) == (1, False), more.stderr
        assert "holds 1 shards, which is fixed at its first start: start with --shards 1" in more.stderr
        broker.start()
        assert [m["id"] for m in Http(broker.url, broker.token).get()] == [id]


def test_other_databases_are_refused_before_any_is_begun(data_dir: Path) -> None:
    with embedded(data_dir) as urls:
        one = environment(urls) | {"DATABASE_URLS": urls.database_urls[0]}
        with Broker(env=one) as broker:
            assert broker.stop() == 0
            command = [sys.executable, "-m", "mqueue.cli", "broker", "--data-dir", str(broker.home / "other")]
            both = subprocess.run(command, capture_output=True, text=True, env=Broker.environment(environment(urls)), check=False, timeout=60)
        assert (both.returncode, "Their number is fixed at the first start" in both.stderr) == (78, True), both.stderr
        with Broker(env=environment(urls) | {"DATABASE_URLS": urls.database_urls[1]}) as alone:
            assert Http(alone.url, alone.token).put(b"x"), "the second one is nobody's yet"
