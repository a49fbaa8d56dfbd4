"""The broker ends and comes back; PostgreSQL stands still; there are two shards."""

import signal

from tests.campaigns import restart
from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.frozen import frozen
from tests.waiting import wait_until


def test_a_clean_restart_keeps_everything() -> None:
    with Broker() as broker:
        http = Http(broker.url, broker.token)
        assert http.get() == []
        ids = http.put(b"ready", b"leased", priority=1) + http.put(b"later", delay=3600) + http.put(b"dying", max_retries=0)
        (key_id,) = http.put(b"keyed", idempotency_key="k", priority=5)
        (dying,) = http.get(limit=1)
        assert dying["id"] == ids[3]
        http.nack(dying, error="no")
        (leased,) = http.get(limit=1, lease=5)
        assert broker.stop() == 0
        assert not (broker.data_dir / "broker.json").exists()
        assert broker.postgres_pid() is None, "its own PostgreSQL ends with it"

        broker.start()
        http = Http(broker.url, broker.token)
        got = http.get()
        assert [m["id"] for m in got] == [ids[0], ids[1], key_id]  # Redis began anew: so did the lease it held
        assert [m["payload"] for m in got] == ["cmVhZHk=", "bGVhc2Vk", "a2V5ZWQ="]
        assert http.status(ids[2]).body["state"] == "delayed"
        assert [d["id"] for d in http.dead()] == [ids[3]]
        assert http.put(b"keyed", idempotency_key="k", priority=5) == [key_id]
        other = http.call("POST", "/enqueue", [{**http.name, "idempotency_key": "k"}])
        assert (other.status, other.body["code"]) == (422, "key-reused")
        stale = http.ack(leased)
        assert (stale.status, stale.body["code"]) == (409, "stale")
        assert [http.ack(m).body["status"] for m in got] == ["ok"] * 3
        assert broker.stop(signal.SIGINT) == 0


def test_a_kill_keeps_leases_keys_and_receipts() -> None:
    """Redis goes on, so nothing that happened is forgotten."""
    with Broker() as broker:
        http = Http(broker.url, broker.token)
        (id,) = http.put(b"pay", idempotency_key="k")
        (message,) = http.get(lease=60)
        broker.kill()
        broker.start()
        http = Http(broker.url, broker.token)
        assert http.get() == []
        assert http.put(b"pay", idempotency_key="k") == [id]
        assert http.status(id).body["state"] == "leased"
        assert http.ack(message).body["status"] == "ok"


def test_two_shards() -> None:
    topics = [f"t{n}" for n in range(20)]
    with Broker("--shards", "2") as broker:
        https = [Http(broker.url, broker.token, topic) for topic in topics]
        items = [{**http.name, "payload": "eA==", "priority": n % 3} for n, http in enumerate(https)]
        ids = https[0].good(https[0].call("POST", "/enqueue", items))
        assert len(set(ids)) == len(topics)
        stats = https[0].good(https[0].call("GET", "/topics"))
        assert sorted(s["topic"] for s in stats) == sorted(topics)
        assert {s["shard"] for s in stats} == {0, 1}
        rows = "SELECT count(*) FROM pending_messages"
        wait_until(lambda: broker.sql(rows, shard=0)[0][0] + broker.sql(rows, shard=1)[0][0] == len(topics), "flushed")
        assert 0 < broker.sql(rows, shard=0)[0][0] < len(topics)

        query = [("namespace", "default"), ("limit", 100), *(("topic", topic) for topic in topics)]
        got = []
        while part := https[0].good(https[0].call("GET", "/dequeue", query=query)):  # an answer may hold fewer than there are
            got += part
        assert sorted(m["id"] for m in got) == sorted(ids)
        settles = [{"namespace": "default", "topic": m["topic"], "id": m["id"], "receipt": m["receipt"]} for m in got]
        assert {v["status"] for v in https[0].good(https[0].call("POST", "/ack", settles))} == {"ok"}
        verdicts = https[0].good(https[0].call("POST", "/nack", settles))
        assert [v["id"] for v in verdicts] == [s["id"] for s in settles]
        assert {v["status"] for v in verdicts} == {"gone"}

        woken = https[0].put(b"x")
        assert [m["id"] for m in https[0].good(https[0].call("GET", "/dequeue", query=[*query, ("wait", 5)]))] == woken
        assert broker.stop() == 0
        broker.start()
        assert Http(broker.url, broker.token, topics[0]).get()[0]["id"] == woken[0]


def test_while_postgresql_stands_still() -> None:
    """The ready queue goes on; enqueues go on until the buffer is full, then 503; afterwards all is there."""
    payload = b"x" * 100_000
    with Broker(env={"MQUEUE_BUFFER_MAX_MB": "1"}) as broker:
        http = Http(broker.url, broker.token)
        assert http.get() == []
        ids = http.put(payload)
        postgres = broker.postgres_pid()
        assert postgres is not None
        with frozen(postgres):
            refused = None
            for _ in range(15):
                reply = http.call("POST", "/enqueue", [{**http.name, "payload": "eHh4" * 25_000, "priority": 1}])
                if reply.status != 200:
                    refused = reply
                    break
                ids += reply.body
            assert refused is not None
            assert (refused.status, refused.body["code"]) == (503, "buffer-full")
            assert int(refused.headers["Retry-After"]) >= 1
            assert 10 <= len(ids) <= 14  # of 100 and then 75 kB each
            (message,) = http.get(limit=1)
            assert message["id"] == ids[0]
            assert http.ack(message).body["status"] == "ok"
        wait_until(lambda: http.call("POST", "/enqueue", [{**http.name, "priority": 2}]).status == 200, "it has room again", 20)
        left = wait_until(lambda: [m["id"] for m in http.get(limit=100, wait=5)], "the others")
        assert left[: len(ids) - 1] == ids[1:]


def test_a_restart_with_an_unflushed_log() -> None:
    """The short form of `restart.py`: nothing is missing; how long it takes depends on the machine."""
    with Broker(env=restart.ENV) as broker:
        found = list(restart.run(broker, messages=2000, records=500))
    assert [r.redis for r in found] == ["kept", "emptied"]
    assert all(r.records >= 500 and not r.missing and r.ready_s < 15 for r in found), restart.report(found)
