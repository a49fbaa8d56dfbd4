"""A broker's host is dead: `mqueue wal replay` brings what only its log has from another machine, `mqueue wal retire` frees its number."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .api import Http
from .broker import Broker, until
from .stores import Stores


@pytest.fixture
def stores(data_dir: Path) -> Iterator[Stores]:
    stores = Stores(data_dir)
    yield stores
    stores.close()


@pytest.fixture
def pair(stores: Stores, request: pytest.FixtureRequest) -> Iterator[tuple[Broker, Broker]]:
    """The first leads. A parameter: settings of the second."""
    env = stores.environment(MQUEUE_FLUSH_AGE_MS="60000")
    with Broker(env=env) as first:
        until(lambda: first.metric("mqueue_leader") == 1, what="the first leads")
        with Broker(env=env | getattr(request, "param", {})) as second:
            yield first, second


def mqueue(stores: Stores, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mqueue.cli", *map(str, words)]
    return subprocess.run(command, env=Broker.environment(stores.environment()), capture_output=True, text=True, timeout=90, check=False)


def wal_of(broker: Broker) -> Path:
    return broker.data_dir / "wal"


def silence(stores: Stores, seconds: float) -> None:
    """As if the dead had been silent for so long."""
    stores.sql(f"UPDATE broker SET seen_at = least(seen_at, now() - interval '{seconds} s') WHERE seen_at < now() - interval '1 s'")


def test_what_only_the_dead_brokers_log_has_comes_out_of_the_other(pair: tuple[Broker, Broker], stores: Stores, tmp_path: Path) -> None:
    first, second = pair
    a, b = Http(first.url, first.token), Http(second.url, second.token)
    kept = a.put(*[b"a"] * 10)
    late = b.put(*[b"b"] * 10)
    [of_a, *_] = b.get(limit=1)
    assert of_a["id"] == kept[0]
    b.ack(of_a)
    got_late = [m for m in b.get(limit=12) if m["id"] in late]
    [b.ack(m) for m in got_late]
    assert len(got_late) == 3
    alive = mqueue(stores, "wal", "replay", wal_of(second))
    assert (alive.returncode, "in use" in alive.stderr) == (75, True), alive.stderr
    copy = tmp_path / "copy"
    shutil.copytree(wal_of(second), copy)
    alive = mqueue(stores, "wal", "replay", copy)
    assert (alive.returncode, "was heard of" in alive.stderr) == (1, True), alive.stderr

    second.kill()
    stores.flush_redis()
    until(lambda: first.metric("mqueue_epoch") >= 2, 20, "a new epoch")
    shutil.rmtree(copy)
    shutil.copytree(wal_of(second), copy)
    before = {p: p.read_bytes() for p in copy.rglob("*.wal")}
    time.sleep(1)
    silence(stores, 10)
    dry = mqueue(stores, "wal", "replay", copy, "--dry-run")
    assert dry.stdout == "shard 0: to replay: 10 messages, 3 of them ended; 1 outcomes too late\n", dry.stderr
    assert stores.rows() == 10

    done = mqueue(stores, "wal", "replay", copy)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "shard 0: replayed: 10 messages, 3 of them ended; 1 outcomes too late\n"
    assert {p: p.read_bytes() for p in copy.rglob("*.wal")} == before
    want = {*kept, *late} - {m["id"] for m in got_late}  # the ack of a's message is lost with b: promise 4
    got: list[dict[str, object]] = []
    until(lambda: got.extend(a.get(limit=100)) or len(got) >= len(want), 20, "all of both")
    assert {m["id"] for m in got} == want
    assert len(got) == len(want)
    assert {m["payload"] for m in got if m["id"] in late} == {"Yg=="}
    [a.ack(m) for m in got]

    again = mqueue(stores, "wal", "replay", copy)
    assert again.stdout == "shard 0: replayed: 0 messages, 0 of them ended; 0 outcomes too late\n"
    second.start()  # the original comes back: it finds nothing left to do
    b = Http(second.url, second.token)
    assert b.get(wait=1) == []
    (id,) = b.put(b"more")
    assert [m["id"] for m in a.get(wait=1)] == [id]
    for broker in (second, first):
        assert broker.stop() == 0
    assert mqueue(stores, "verify").returncode == 0


@pytest.mark.parametrize("pair", [{"MQUEUE_FAILPOINTS": "enqueue.before_redis=delay:60"}], indirect=True)
def test_what_redis_was_never_told_comes_too(pair: tuple[Broker, Broker], stores: Stores) -> None:
    """In the log, not in Redis, never answered: a start would bring it."""
    first, second = pair
    a, b = Http(first.url, first.token), Http(second.url, second.token)
    with ThreadPoolExecutor(1) as pool:
        unanswered = pool.submit(b.call, "POST", "/enqueue", [{**b.name, "payload": "eA=="}])
        until(lambda: "enqueue: 1" in mqueue(stores, "wal", "inspect", wal_of(second)).stdout, 20, "it is in the log")
        second.kill()
        with pytest.raises(OSError):
            unanswered.result(20)
    time.sleep(1)
    silence(stores, 10)
    assert "1 records are of the present epoch" in mqueue(stores, "wal", "replay", wal_of(second), "--dry-run").stdout
    done = mqueue(stores, "wal", "replay", wal_of(second))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "shard 0: brought to Redis: 1 messages"
    assert [m["payload"] for m in a.get(wait=2)] == ["eA=="]
    assert "brought" not in mqueue(stores, "wal", "replay", wal_of(second)).stdout
    assert a.get() == []


def test_what_redis_has_is_left_to_its_leader(pair: tuple[Broker, Broker], stores: Stores) -> None:
    first, second = pair
    ids = Http(second.url, second.token).put(*[b"x"] * 20)
    second.kill()
    time.sleep(1)
    silence(stores, 10)
    assert stores.rows() == 0
    done = mqueue(stores, "wal", "replay", wal_of(second))
    assert (done.returncode, done.stdout) == (0, "shard 0: replayed: 0 messages, 0 of them ended; 0 outcomes too late\n"), done.stderr
    assert stores.rows() == 20
    assert [m["id"] for m in Http(first.url, first.token).get(limit=100)] == ids
    first.kill()
    stores.flush_redis()
    time.sleep(1)
    silence(stores, 10)
    assert mqueue(stores, "wal", "replay", wal_of(second)).returncode == 0, "nothing is left, so nobody is asked"
