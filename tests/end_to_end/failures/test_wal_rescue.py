"""A broker's host is dead: `mqueue wal replay` brings what only its log has from another machine, `mqueue wal retire`
frees its number.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.waiting import wait_until


@pytest.fixture
def pair(stores: Stores, request: pytest.FixtureRequest) -> Iterator[tuple[Broker, Broker]]:
    """The first leads. A parameter: settings of the second."""
    env = stores.environment(MQUEUE_FLUSH_AGE_MS="60000")
    with Broker(env=env) as first:
        wait_until(lambda: first.metric("mqueue_leader") == 1, "the first leads")
        with Broker(env=env | getattr(request, "param", {})) as second:
            yield first, second


def mqueue(stores: Stores, *words: object, env: Mapping[str, str] = MappingProxyType({})) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mqueue.cli", *map(str, words)]
    settings = Broker.environment({**stores.environment(), **env})
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=90, check=False)


def wal_of(broker: Broker) -> Path:
    return broker.data_dir / "wal"


def silence(stores: Stores, dead: Broker, seconds: float) -> None:
    """Makes it look as if the dead one had been silent for so long."""
    identity = json.loads((wal_of(dead) / "broker.json").read_text())["uuid"]
    stores.sql(f"UPDATE broker SET seen_at = now() - interval '{seconds} s' WHERE identity = '{identity}'")


def test_what_only_the_dead_brokers_log_has_comes_out_of_the_other(pair: tuple[Broker, Broker], stores: Stores, tmp_path: Path) -> None:
    first, second = pair
    a, b = Http(first.url, first.token), Http(second.url, second.token)
    kept = a.put(*[b"a"] * 10)
    [of_a] = b.get(limit=1)
    assert of_a["id"] == kept[0]
    b.ack(of_a)
    late = b.put(*[b"b"] * 10, priority=-1)
    got_late = b.get(limit=3)
    assert [m["id"] for m in got_late] == late[:3]
    [b.ack(m) for m in got_late]  # no lease is left: a mirrored one would outlive its epoch
    alive = mqueue(stores, "wal", "replay", wal_of(second))
    assert (alive.returncode, "in use" in alive.stderr) == (75, True), alive.stderr
    copy = tmp_path / "copy"
    shutil.copytree(wal_of(second), copy)
    alive = mqueue(stores, "wal", "replay", copy)
    assert (alive.returncode, "was heard of" in alive.stderr) == (1, True), alive.stderr

    second.kill()
    stores.flush_redis()
    wait_until(lambda: first.metric("mqueue_epoch") >= 2, "a new epoch", 20)
    shutil.rmtree(copy)
    shutil.copytree(wal_of(second), copy)
    before = {p: p.read_bytes() for p in copy.rglob("*.wal")}
    silence(stores, second, 10)
    dry = mqueue(stores, "wal", "replay", copy, "--dry-run")
    assert dry.stdout == "shard 0: to replay: 10 messages, 3 of them ended; 1 outcomes too late\n", dry.stderr
    assert stores.rows() == 10

    done = mqueue(stores, "wal", "replay", copy)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "shard 0: replayed: 10 messages, 3 of them ended; 1 outcomes too late\n"
    assert {p: p.read_bytes() for p in copy.rglob("*.wal")} == before
    want = {*kept, *late} - {m["id"] for m in got_late}  # the ack of a's message is lost with b: promise 4
    got: list[dict[str, object]] = []
    wait_until(lambda: got.extend(a.get(limit=100)) or len(got) >= len(want), "all of both", 20)
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
        wait_until(lambda: "enqueue: 1" in mqueue(stores, "wal", "inspect", wal_of(second)).stdout, "it is in the log", 20)
        second.kill()
        with pytest.raises(OSError):
            unanswered.result(20)
    silence(stores, second, 10)
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
    silence(stores, second, 10)
    assert stores.rows() == 0
    done = mqueue(stores, "wal", "replay", wal_of(second))
    assert (done.returncode, done.stdout) == (0, "shard 0: replayed: 0 messages, 0 of them ended; 0 outcomes too late\n"), done.stderr
    assert stores.rows() == 20
    assert [m["id"] for m in Http(first.url, first.token).get(limit=100)] == ids
    first.kill()
    stores.flush_redis()
    silence(stores, first, 10)
    assert mqueue(stores, "wal", "replay", wal_of(second)).returncode == 0, "nothing is left, so nobody is asked"


# -- retire ------------------------------------------------------------------------------------------------------------


def test_a_number_is_freed_when_all_is_flushed_and_its_next_owner_begins_after_it(pair: tuple[Broker, Broker], stores: Stores) -> None:
    first, second = pair
    ids = Http(second.url, second.token).put(*[b"x"] * 20)
    wal = wal_of(second)
    assert mqueue(stores, "wal", "retire", wal).returncode == 75, "it runs"
    second.kill()
    silence(stores, second, 20)
    early = mqueue(stores, "wal", "retire", wal)
    assert (early.returncode, "was heard of" in early.stderr) == (1, True), early.stderr
    silence(stores, second, 100)
    refused = mqueue(stores, "wal", "retire", wal)
    assert (refused.returncode, "run mqueue wal replay first" in refused.stderr) == (1, True), refused.stderr
    assert mqueue(stores, "wal", "replay", wal).returncode == 0
    floor = raise_floor(wal, 3_600_000)  # its clock was an hour ahead
    shutil.copytree(wal, copy := second.home / "copy")
    [(node,)] = stores.sql("SELECT max(node) FROM broker")
    done = mqueue(stores, "wal", "retire", wal)
    assert done.stdout == f"node number {node} is free; nothing needs {wal} any more\n", done.stderr
    [(position,)] = stores.sql(f"SELECT position FROM broker WHERE node = {node} AND identity IS NULL AND id_floor_ms = {floor}")

    again = mqueue(stores, "broker", "--data-dir", second.data_dir)
    assert (again.returncode, "was retired" in again.stderr + again.stdout) == (78, True), again.stderr
    assert mqueue(stores, "wal", "retire", copy).returncode == 1, "it is not known any more"

    # all other numbers are somebody's: a new broker gets this one
    stores.sql(f"INSERT INTO broker (node, identity) SELECT n, gen_random_uuid() FROM generate_series({node + 1}, 1023) n")
    stores.sql("UPDATE broker SET seen_at = to_timestamp(0) WHERE node > 2")
    with Broker(env=stores.environment(MQUEUE_FLUSH_AGE_MS="60000")) as third:
        c = Http(third.url, third.token)
        new = c.put(*[b"y"] * 20)
        assert min(new) >> 22 >= floor > max(ids) >> 22
        assert {id >> 12 & 1023 for id in ids + new} == {node}
        third.kill()
        stores.flush_redis()  # only its log has them now, with sequences that nobody took for flushed
        wait_until(lambda: first.metric("mqueue_epoch") >= 2, "a new epoch", 20)
        third.start()
        a = Http(first.url, first.token)
        got: list[int] = []
        wait_until(lambda: got.extend(m["id"] for m in a.get(limit=100)) or len(got) >= 40, "all", 20)
        assert sorted(got) == sorted(ids + new)
        assert stores.sql(f"SELECT count(*) FROM broker WHERE node = {node} AND started > {position}") == [(1,)]

    taken = mqueue(stores, "broker", "--data-dir", second.home / "other", env={"WAL_DIR": str(copy), "MQUEUE_WAL_MOVED": "1"})
    assert (taken.returncode, "belongs to another broker" in taken.stderr + taken.stdout) == (78, True), taken.stderr


def test_a_number_is_freed_though_its_last_life_took_nothing(pair: tuple[Broker, Broker], stores: Stores) -> None:
    """It joined the epoch, so Redis knows a number of it, and no batch will ever be flushed up to that."""
    second = pair[1]
    [(node,)] = stores.sql("SELECT max(node) FROM broker")
    second.kill()
    second.start()
    second.kill()
    shutil.rmtree(wal_of(second))
    stores.sql(f"UPDATE broker SET seen_at = now() - interval '100 s' WHERE node = {node}")
    done = mqueue(stores, "wal", "retire", "--node", node, "--lost")
    assert (done.returncode, f"node number {node} is free" in done.stdout) == (0, True), done.stderr


def test_a_number_whose_directory_is_lost_is_freed_by_whoever_accepts_the_loss(pair: tuple[Broker, Broker], stores: Stores) -> None:
    first, second = pair
    b = Http(second.url, second.token)
    ids = b.put(*[b"x"] * 20)
    [(node,)] = stores.sql("SELECT max(node) FROM broker")
    second.kill()
    shutil.rmtree(wal_of(second))
    heard = mqueue(stores, "wal", "retire", "--node", node, "--lost")
    assert (heard.returncode, "was heard of" in heard.stderr) == (1, True), heard.stderr
    stores.sql(f"UPDATE broker SET seen_at = now() - interval '100 s' WHERE node = {node}")
    first.kill()
    unflushed = mqueue(stores, "wal", "retire", "--node", node, "--lost")
    assert (unflushed.returncode, "not flushed yet" in unflushed.stderr) == (1, True), unflushed.stderr
    assert "Redis has its batches up to" in unflushed.stdout
    first.start()  # it flushes when it is asked
    asked = mqueue(stores, "wal", "retire", "--node", node)
    assert (asked.returncode, "--lost" in asked.stderr) == (1, True), asked.stderr
    [(position,)] = stores.sql(f"SELECT position FROM broker WHERE node = {node} AND identity IS NOT NULL")
    assert f"up to sequence {position}" in asked.stdout
    done = mqueue(stores, "wal", "retire", "--node", node, "--lost")
    assert (done.returncode, f"node number {node} is free" in done.stdout) == (0, True), done.stderr
    assert mqueue(stores, "wal", "retire", "--node", node, "--lost").returncode == 1, "it is nobody's"
    assert mqueue(stores, "wal", "retire").returncode == 2

    stores.sql(f"INSERT INTO broker (node, identity) SELECT n, gen_random_uuid() FROM generate_series({node + 1}, 1023) n")
    with Broker(env=stores.environment()) as third:
        new = Http(third.url, third.token).put(*[b"y"] * 20)
        assert {id >> 12 & 1023 for id in new} == {node}
        assert min(new) > max(ids), "it begins after the old one"
        refused = mqueue(stores, "broker", "--data-dir", second.home / "one-more")
    assert refused.returncode == 78
    for said in ("1,023 node numbers are taken", "mqueue wal retire --node", "Traceback"):
        assert (said in refused.stderr + refused.stdout) == (said != "Traceback"), refused.stderr


def raise_floor(wal: Path, ms: int) -> int:
    state = json.loads((wal / "broker.json").read_text())
    state["id_floor_ms"] += ms
    (wal / "broker.json").write_text(json.dumps(state))
    return int(state["id_floor_ms"])


def test_a_directory_restored_from_an_older_copy_takes_no_number_twice(stores: Stores) -> None:
    """Its numbers would lie below its position: PostgreSQL would take them for flushed."""
    with Broker(env=stores.environment(MQUEUE_WAL_MOVED="1", MQUEUE_FLUSH_AGE_MS="60000")) as broker:
        http = Http(broker.url, broker.token)
        http.put(b"1")
        assert broker.stop() == 0
        shutil.copytree(wal_of(broker), old := broker.home / "old")
        for _ in range(2):
            broker.start()
            Http(broker.url, broker.token).put(b"2")
            assert broker.stop() == 0
        shutil.rmtree(wal_of(broker))
        old.rename(wal_of(broker))
        broker.start()
        (id,) = Http(broker.url, broker.token).put(b"3")
        broker.kill()
        stores.flush_redis()
        broker.start()
        http = Http(broker.url, broker.token)
        got: list[int] = []
        wait_until(lambda: got.extend(m["id"] for m in http.get(limit=100)) or id in got, "what only the log had", 20)
