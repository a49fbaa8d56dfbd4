"""Results against real brokers: what acks may write and what not, waiting on another broker, a restart, the cold path,
a worker.
"""

import base64
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mqueue import JobFailed, MQueue
from mqueue.client import Client
from mqueue.errors import NotFound, Pending
from tests import ROOT
from tests.processes.api import Http, Reply
from tests.processes.broker import Broker
from tests.processes.place import Place
from tests.waiting import wait_until

TASKS = """
import os
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from mqueue import MQueue

app = MQueue()


@dataclass
class Sum:
    total: Decimal
    at: datetime


@app.task(topic="sums", result=True)
async def looped(numbers: list[Decimal], at: datetime) -> Sum:
    return Sum(sum(numbers, Decimal()), at)


@app.task(topic="sums", result=True, executor="process")
def crunched(numbers: list[Decimal], at: datetime) -> Sum:
    return Sum(sum(numbers, Decimal()), at)


@app.task(topic="sums", result=True, max_retries=0)
def fails() -> int:
    raise LookupError("no such number")
"""
CALLS = """
from datetime import UTC, datetime
from decimal import Decimal
from mqueue import JobFailed
import e2e_tasks as t

at = datetime(2030, 1, 1, tzinfo=UTC)
handles = [task.enqueue([Decimal("1.50"), Decimal(2)], at) for task in (t.looped, t.crunched)]
assert [handle.result(30) for handle in handles] == [t.Sum(Decimal("3.50"), at)] * 2
assert [handle.status().state for handle in handles] == ["done"] * 2
try:
    t.fails.enqueue().result(30)
except JobFailed as error:
    assert "LookupError: no such number" in error.detail and "Traceback" in error.detail
else:
    raise AssertionError("it has failed")
"""


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def result_of(http: Http, id: int, **query: Any) -> Reply:
    return http.call("GET", f"/messages/{id}/result", query=query, timeout=60)


def test_acks_leave_results_and_late_or_repeated_ones_change_nothing(broker: Broker) -> None:
    http = Http(broker.url, broker.token, topic="acks")
    [id] = http.put(b"x")
    assert (result_of(http, id).status, result_of(http, id).body["code"]) == (404, "pending")
    [sleeper] = http.get(lease=0.05)
    [worker] = http.get(wait=20)  # once the sleeper's lease has ended
    late = http.ack(sleeper, result=text(b"late"))
    assert (late.status, late.body["code"]) == (409, "stale")
    assert result_of(http, id, **http.name).body["code"] == "pending"
    assert http.ack(worker, result=text(b"right"), result_ttl=60).body["status"] == "ok"
    assert result_of(http, id).body == {"id": id, "value": text(b"right")}
    assert http.ack(worker, result=text(b"repeated")).body["status"] == "gone"
    assert http.ack(sleeper, result=text(b"late")).body["status"] == "gone"
    assert result_of(http, id, **http.name).body["value"] == text(b"right")
    assert http.good(http.status(id))["state"] == "done"
    assert result_of(http, id, topic="other").body["code"] == "not-found"
    assert broker.sql("SELECT count(*) FROM result WHERE id = %s", (id,)) == [(1,)]


def test_a_repeated_ack_brings_the_result_that_postgres_did_not_take(broker: Broker) -> None:
    http = Http(broker.url, broker.token, topic="repeats")
    [id] = http.put(b"x")
    [message] = http.get()
    with broker.database() as connection:
        connection.execute("ALTER TABLE result RENAME TO hidden")
        refused = http.ack(message, result=text(b"5"))
        connection.execute("ALTER TABLE hidden RENAME TO result")
    assert (refused.status, refused.body["code"], refused.headers["Retry-After"]) == (503, "unavailable", "1")
    waiting: list[Reply] = []
    thread = threading.Thread(target=lambda: waiting.append(result_of(http, id, wait=20)))
    thread.start()  # neither message nor result is there: it waits a while
    assert http.ack(message, result=text(b"5")).body["status"] == "gone"
    thread.join(30)
    assert waiting[0].body == {"id": id, "value": text(b"5")}


def test_what_has_no_result_says_so(broker: Broker) -> None:
    http = Http(broker.url, broker.token, topic="none")
    with Client(broker.url, broker.token) as client:
        dead, waits, acked = http.put(b"1", max_retries=0) + http.put(b"2", b"3", delay=60)[:1] + http.put(b"4", priority=9)
        for message in http.get():
            (http.nack if message["id"] == dead else http.ack)(message, **({"error": "E" * 3000} if message["id"] == dead else {}))
        with pytest.raises(JobFailed) as failed:
            client.result(dead, wait=20)
        assert failed.value.detail == "E" * 3000
        with pytest.raises(Pending, match="delayed"):
            client.result(waits, topic="none", wait=0.1)
        with pytest.raises(NotFound):
            client.result(acked, topic="none")
        with pytest.raises(NotFound):
            client.result(5)


def test_a_result_too_large_is_refused_and_nothing_is_settled(broker: Broker) -> None:
    http = Http(broker.url, broker.token, topic="large")
    http.put(b"x")
    [message] = http.get()
    refused = http.ack(message, result=text(bytes((1 << 20) + 1)))
    assert (refused.status, refused.body["code"], refused.body["field"]) == (413, "too-large", "result")
    wrong = http.nack(message, result="eA==")
    assert (wrong.status, wrong.body["field"]) == (400, "result")
    assert http.ack(message, result=text(bytes(1 << 20))).body["status"] == "ok"


def test_a_result_expires(broker: Broker) -> None:
    http = Http(broker.url, broker.token, topic="expires")
    [id] = http.put(b"x")
    http.ack(http.get()[0], result="eA==", result_ttl=0.3)
    assert result_of(http, id).status == 200
    wait_until(lambda: result_of(http, id).status == 404, "it has expired", 10)


def test_namespaces_do_not_see_each_others_results(broker: Broker) -> None:
    http = Http(broker.url, broker.token, topic="t", namespace="one")
    [id] = http.put(b"x")
    command = [sys.executable, "-m", "mqueue.cli", "token", "--data-dir", str(broker.data_dir), "--namespace", "two"]
    token = subprocess.run(command, env=broker.environment({}), cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    other = Http(broker.url, token, topic="t", namespace="two")
    assert other.call("POST", "/ack", {**other.name, "id": id, "result": text(b"forged")}).body["status"] == "gone"
    http.ack(http.get()[0], result=text(b"real"))
    assert result_of(http, id, **http.name).body["value"] == text(b"real")
    assert result_of(other, id, **http.name).body["code"] == "not-found"
    assert result_of(other, id).body["value"] == text(b"forged")  # its own, of a message that never was
    assert http.good(http.status(id))["state"] == "done"


def test_a_worker_on_one_broker_and_whoever_waits_on_another(broker: Broker, tmp_path: Path) -> None:
    place = Place(tmp_path, broker, TASKS)
    with place.worker() as worker:
        with Broker("--join", str(broker.data_dir), own_data_dir=False) as second:
            place.python(f"import e2e_tasks as t; t.app.producer.connect({second.url!r}, {broker.token!r})\n{CALLS}")
        assert worker.stop() == 0


def test_a_result_outlives_its_broker_and_redis(tmp_path: Path) -> None:
    with Broker() as broker:
        app = MQueue(broker.url, broker.token)

        @app.task(topic="t", result=True)
        def five() -> int:
            return 5

        handle = five.enqueue()
        http = Http(broker.url, broker.token, topic="t")
        http.ack(http.get()[0], result=text(b"5"))
        broker.kill()
        with broker.redis() as redis:
            redis.flushall()
        broker.start()
        app.producer.connect(broker.url, broker.token)
        assert five.handle(handle.id).result(30) == 5
        assert five.handle(handle.id).status().state == "done"  # type: ignore[union-attr]


PROGRESS = """
import os
from importlib.metadata import version
from pathlib import Path
from mqueue import MQueue, current
from tests.waiting import wait_until

app = MQueue()


def run() -> None:
    current().progress(0.4, "rows 1-40")
    wait_until(Path(os.environ["OUT"]).exists, seconds=60)


@app.task(topic="rows")
def threaded() -> None:
    run()


@app.task(topic="rows", executor="process")
def process() -> None:
    run()
"""


def test_workers_are_listed_and_tell_how_far_their_jobs_are(broker: Broker, tmp_path: Path) -> None:
    def table(*options: str) -> list[list[str]]:
        command = [sys.executable, "-m", "mqueue.cli", "workers", *options, "--url", broker.url, "--token", broker.token]
        said = subprocess.run(command, env=broker.environment({}), cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [line.split() for line in said.splitlines()[1:]]

    place = Place(tmp_path, broker, PROGRESS)
    place.python("import e2e_tasks as t; t.threaded.enqueue(), t.process.enqueue()")
    with place.worker("--name", "rows-1", "--concurrency", "5") as worker, Client(broker.url, broker.token) as client:
        running = wait_until(
            lambda: found if len(found := [r for w in client.workers() for r in w.running if r.progress]) == 2 else None, seconds=20
        )
        for run in running:
            status = client.message(run.id)
            assert status is not None and (status.state, status.progress, status.note) == ("leased", 0.4, "rows 1-40")
        assert table("--namespace", "default") == [["rows-1", "running", version("mqueue"), "5", "2", "0", "0", "default/rows"]]
        assert sorted(line[3:5] + line[6:] for line in table("--jobs")) == [
            ["e2e_tasks.process", "1", "40%", "rows", "1-40"], ["e2e_tasks.threaded", "1", "40%", "rows", "1-40"]
        ]  # fmt: skip
        assert client.workers("other") == []
        (tmp_path / "out").touch()
        wait_until(lambda: all(client.message(run.id) is None for run in running), "both are done", 20)
        assert worker.stop() == 0
        wait_until(lambda: client.workers() == [], "it has said goodbye", 5)
