"""`mqueue worker` as a process of its own, against a real broker."""

import http.client
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.broker import Broker, free_ports
from tests.processes.place import Place
from tests.waiting import wait_until

TASKS = """
import asyncio
import os
from pathlib import Path

from e2e_notes import note

from mqueue import Bury, RateLimited, Retry, Snooze, current, task


def lines(word: str) -> int:
    return sum(line.startswith(word) for line in Path(os.environ["OUT"]).read_text().splitlines())


@task(topic="jobs")
def plain(n: int) -> None:
    note(f"plain {n}")


@task(topic="jobs")
async def coroutine(n: int) -> None:
    await asyncio.sleep(0)
    note(f"coroutine {n}")


@task(topic="jobs", max_retries=2)
def flaky() -> None:
    note(f"flaky {current().attempt}")
    if current().attempt < 3:
        raise RateLimited("not yet", retry_after=0.05)


@task(topic="jobs", max_retries=1)
async def failing() -> None:
    note(f"failing {current().attempt}")
    raise ValueError("never works") if current().attempt == 2 else RateLimited(retry_after=0)


@task(topic="jobs", retry=Retry(max=2, base=0.05, never=(LookupError,)))
def choosy(missing: bool) -> None:
    note(f"choosy {missing}")
    raise KeyError("missing") if missing else OSError("busy")


@task(topic="jobs")
async def early() -> None:
    note(f"early {current().attempt}")
    if lines("early") < 3:
        raise Snooze(0.05)


@task(topic="jobs")
def hopeless() -> None:
    note("hopeless")
    raise Bury("cannot ever work")


@task(topic="jobs", lease=0.5)
def slow() -> None:
    import time
    note("slow begins")
    time.sleep(1.5)  # longer than its lease
    note("slow ends")


@task(topic="jobs")
async def stuck() -> None:
    note(f"stuck {current().attempt}")
    await asyncio.Event().wait()

@task(topic="jobs", lease=1)
async def sleeper() -> None:
    note(f"sleeper {os.getpid()} {current().attempt}")
    try:
        await asyncio.sleep(6)  # six leases long
    except asyncio.CancelledError:
        note(f"cancelled {os.getpid()}")
        raise
    note(f"done {os.getpid()}")
"""
CALLS = """
import e2e_tasks as t
for n in range(20):
    t.plain.enqueue(n)
    t.coroutine.enqueue(n)
t.choosy.enqueue(True), t.choosy.enqueue(False), t.early.enqueue()
t.flaky.enqueue(), t.failing.enqueue(), t.hopeless.enqueue(), t.slow.enqueue()
"""


@pytest.fixture
def broker() -> Iterator[Broker]:
    """For each test: some leave jobs behind."""
    with Broker() as broker:
        yield broker


def test_outcomes_of_tasks(broker: Broker, tmp_path: Path) -> None:
    from mqueue.client import Client

    place = Place(tmp_path, broker, TASKS)
    place.python(CALLS)
    with place.worker() as worker:
        with Client(broker.url, broker.token) as client:
            wait_until(lambda: "slow ends" in place.lines() and len(client.dead_letters("jobs")) == 4, "all has run", 30)
            lines = place.lines()
            for n in range(20):
                assert lines.count(f"plain {n}") == lines.count(f"coroutine {n}") == 1
            assert [line for line in lines if line.startswith("flaky")] == ["flaky 1", "flaky 2", "flaky 3"]
            assert [line for line in lines if line.startswith("failing")] == ["failing 1", "failing 2"]
            assert lines.count("hopeless") == lines.count("slow begins") == lines.count("slow ends") == 1
            assert [line for line in lines if line.startswith("early")] == ["early 1"] * 3
            assert (lines.count("choosy True"), lines.count("choosy False")) == (1, 3)
            errors = sorted((dead.error or "").splitlines()[0] for dead in client.dead_letters("jobs"))
            assert errors[:3] == ["KeyError: 'missing'", "OSError: busy", "ValueError: never works"]
            assert errors[3].endswith("Bury: cannot ever work")
            numbers = wait_until(lambda: [t for t in client.topics() if t.counters.get("acked") == 43], "all acks counted")[0]
            assert (numbers.leased, numbers.delayed, numbers.dead) == (0, 0, 4)
        assert worker.stop() == 0


def test_a_stopped_worker_gives_back_what_it_could_not_end(broker: Broker, tmp_path: Path) -> None:
    place = Place(tmp_path, broker, TASKS)
    place.python("import e2e_tasks as t; t.stuck.enqueue()")
    with place.worker("--grace", "1s") as first:
        wait_until(lambda: place.lines() == ["stuck 1"], "it runs", 60)
        assert first.stop(60) == 0, f"its last settle was not taken: {place.log()}"
    with place.worker("--grace", "1s"):
        wait_until(lambda: place.lines() == ["stuck 1", "stuck 1"], "it runs again, at once, and no attempt was counted", 60)


def test_a_worker_that_slept_past_its_lease_cancels_what_runs_elsewhere_by_now(broker: Broker, tmp_path: Path) -> None:
    place = Place(tmp_path, broker, TASKS)
    place.python("import e2e_tasks as t; t.sleeper.enqueue()")
    with place.worker("--concurrency", "1") as first:  # with another slot it would ask for jobs while it sleeps
        wait_until(place.lines, "it runs", 20)
        first.send_signal(signal.SIGSTOP)
        with place.worker() as second:
            wait_until(lambda: len(place.lines()) == 2, "it runs elsewhere, an attempt later", 20)
            first.send_signal(signal.SIGCONT)
            wait_until(lambda: len(place.lines()) == 4, "one was cancelled, the other is done", 20)
        assert place.lines() == [f"sleeper {first.pid} 1", f"sleeper {second.pid} 2", f"cancelled {first.pid}", f"done {second.pid}"]


def ready(place: Place) -> int:
    """What the worker's probe says, 0 before it listens."""
    ports = [line["port"] for line in map(json.loads, place.log().splitlines()) if line["event"] == "probe"]
    if not ports:
        return 0
    connection = http.client.HTTPConnection("127.0.0.1", ports[-1], timeout=5)
    connection.request("GET", "/ready")
    return connection.getresponse().status


def test_a_worker_outlives_a_restart_of_its_broker(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with Broker("--port", str(port)) as broker:
        place = Place(tmp_path, broker, TASKS)
        with place.worker("--probe-port", "0", "--probe-host", "127.0.0.1") as worker:
            place.python("import e2e_tasks as t; t.plain.enqueue(1)")
            wait_until(lambda: place.lines() == ["plain 1"], "it works", 20)
            wait_until(lambda: ready(place) == 200, "it is ready", 20)
            broker.kill()
            wait_until(lambda: ready(place) == 503, "it cannot claim work", 10)
            broker.start()
            wait_until(lambda: ready(place) == 200, "it is ready again", 20)
            place.python("import e2e_tasks as t; t.plain.enqueue(2)")
            wait_until(lambda: place.lines() == ["plain 1", "plain 2"], "it works again", 30)
            assert worker.poll() is None
