"""Redis forgets, goes back in time, or is not what it should be; the brokers notice, and nothing is untrue
meanwhile.
"""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import redis

from mqueue.broker.cache import keys
from mqueue.broker.embedded import StoreUrls
from mqueue.broker.embedded.binaries import find_valkey
from tests.processes.api import Http, Reply
from tests.processes.broker import Broker, asleep
from tests.processes.stores import Stores, environment
from tests.waiting import wait_until


def client(stores: Stores) -> "redis.Redis[bytes]":
    return redis.Redis(unix_socket_path=stores.urls.redis_addrs[0].removeprefix("unix://"), password=stores.urls.redis_password)


def test_a_failed_script_ends_the_epoch(stores: Stores) -> None:
    """Somebody deleted a key: the state cannot be trusted, and the log has it all."""
    with Broker(env=stores.environment()) as broker:
        http = Http(broker.url, broker.token)
        ids = http.put(*[b"x"] * 20)
        with client(stores) as cache:
            cache.delete(keys.record(0))
        got = wait_until(lambda: _try(http, 100), "delivered after the new epoch", 15)
        assert [m["id"] for m in got] == ids
        assert broker.metric("mqueue_epoch") >= 2


def test_a_leader_waits_for_its_own_replay_however_long(stores: Stores) -> None:
    """Its log has acks of rows that PostgreSQL has: they count only if they come before the new epoch."""
    env = stores.environment(MQUEUE_FLUSH_AGE_MS="60000")
    with Broker(env=env) as broker:
        ids = Http(broker.url, broker.token).put(*[b"x"] * 5)
        assert broker.stop() == 0, "all is flushed"
        broker.start()
        http = Http(broker.url, broker.token)
        acked = wait_until(lambda: http.get(limit=2), "delivered")
        assert [http.ack(m).body["status"] for m in acked] == ["ok"] * len(acked)
        broker.kill()
        stores.flush_redis()
        broker.start(MQUEUE_FAILPOINTS="recovery.before_replay=delay:5")  # longer than others are waited for
        http = Http(broker.url, broker.token)
        got = wait_until(lambda: http.get(limit=10), "the others", 15)
        assert [m["id"] for m in got] == ids[len(acked) :]


def test_a_leader_waits_for_a_replay_that_goes_on(stores: Stores) -> None:
    """The other's log has acks of rows that PostgreSQL has: they count only if they come before the new epoch."""
    env = stores.environment(MQUEUE_FLUSH_AGE_MS="60000")
    with Broker(env=env) as leader:
        ids = Http(leader.url, leader.token).put(*[b"x"] * 5)
        assert leader.stop() == 0, "all is flushed"
        leader.start()
        wait_until(lambda: leader.metric("mqueue_leader") == 1, "it leads")
        with Broker(env={**env, "MQUEUE_FAILPOINTS": "recovery.before_replay=delay:9"}) as other:  # longer than the silent are waited for
            http = Http(other.url, other.token)
            acked = wait_until(lambda: http.get(limit=2), "delivered")
            assert [http.ack(m).body["status"] for m in acked] == ["ok"] * len(acked)
            stores.flush_redis()
            http = Http(leader.url, leader.token)
            wait_until(lambda: leader.metric("mqueue_epoch") >= 2, "a new epoch", 30)
            got = wait_until(lambda: _try(http, 10), "the others", 30)
            assert [m["id"] for m in got] == ids[len(acked) :]


def test_any_broker_whose_script_fails_ends_the_epoch(stores: Stores) -> None:
    with leader_and_other(stores.environment()) as (leader, other):
        http = Http(other.url, other.token)
        assert http.get() == []  # opens the topic: what comes now is ready at once
        ids = http.put(*[b"x"] * 5)
        with client(stores) as cache, asleep(leader):
            cache.delete(keys.record(0))
            assert http.call("GET", "/dequeue", query=http.name).status == 503
            assert cache.hget(keys.shard(0), "epoch") is None
        got = wait_until(lambda: _try(http, 100), "delivered after the new epoch", 15)
        assert [m["id"] for m in got] == ids


def test_a_batch_out_of_step_joins_again(stores: Stores) -> None:
    with Broker(env=stores.environment()) as broker:
        http = Http(broker.url, broker.token)
        http.put(b"x")
        with client(stores) as cache:
            [applied] = [field for field in cache.hkeys(keys.shard(0)) if field.startswith(b"applied:")]
            cache.hset(keys.shard(0), applied, (1).to_bytes(8))
        wait_until(lambda: http.call("POST", "/enqueue", [http.name]).status == 200, "it serves again", 10)


def test_more_fetches_wait_than_there_are_connections(stores: Stores) -> None:
    with Broker(env=stores.environment()) as broker:
        https = [Http(broker.url, broker.token, topic=f"t{n}") for n in range(60)]

        def fetch(n: int) -> Reply:
            """A slow machine's leader may not open sixty new topics in time: then the same again."""
            http = https[n % 60]
            query = {**http.name, "wait": 1}
            return wait_until(lambda: http.call("GET", "/dequeue", query=query), "a fetch is served", 60, enough=lambda r: r.status == 200)

        with ThreadPoolExecutor(150) as pool:
            replies = list(pool.map(fetch, range(300)))
        assert {reply.status for reply in replies} == {200}
        assert broker.metric("mqueue_leader") == 1


class Server:
    """A Valkey that keeps a snapshot, as many are set up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "sock"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([find_valkey(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._process.stdin is not None
        with self._process.stdin as settings:
            settings.write(f'port 0\nunixsocket {self.socket}\ndir {self._folder}\nsave ""\ndbfilename dump.rdb\n'.encode())
        wait_until(self._answers, "Valkey listens")

    def _answers(self) -> bool:
        try:
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def save(self) -> None:
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.save()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def test_a_redis_that_comes_back_from_a_snapshot_delivers_nothing_again(stores: Stores) -> None:
    """The leader sleeps, so that it is the other broker itself that must see another server."""
    folder = stores.folder / "snapshots"
    folder.mkdir()
    server = Server(folder)
    urls = StoreUrls(stores.urls.database_urls, (f"unix://{server.socket}",), "")
    try:
        with leader_and_other(environment(urls)) as (leader, other):
            http = Http(other.url, other.token)
            assert http.get() == []
            ids = http.put(b"1", b"2")
            server.save()
            got = http.get()
            assert [m["id"] for m in got] == ids
            assert [http.ack(m).body["status"] for m in got] == ["ok", "ok"]
            wait_until(lambda: http.stats()["counters"].get("acked") == 2, "the acks are flushed")
            with asleep(leader):
                server.kill()
                server.start()
                replies = [http.call("GET", "/dequeue", query=http.name) for _ in range(3)]
                # refused; or nothing there, once the other has taken the sleeper's lock
                assert [reply for reply in replies if reply.status != 503 and reply.body != []] == [], "delivered after its ack"
            (id,) = wait_until(lambda: _put(http), "it serves again", 20)
            assert [m["id"] for m in wait_until(lambda: _try(http, 10), "delivered", 10)] == [id]
    finally:
        server.kill()


@contextmanager
def leader_and_other(env: dict[str, str]) -> Iterator[tuple[Broker, Broker]]:
    with Broker(env=env) as leader:
        wait_until(lambda: leader.metric("mqueue_leader") == 1, "it leads")
        with Broker(env=env) as other:
            yield leader, other


def _try(http: Http, limit: int) -> list[dict[str, object]]:
    reply = http.call("GET", "/dequeue", query={**http.name, "limit": limit})
    return reply.body if reply.status == 200 else []


def _put(http: Http) -> list[int]:
    reply = http.call("POST", "/enqueue", [http.name])
    return reply.body if reply.status == 200 else []
