"""A running job is cancelled within a second, wherever it runs; one that waits never runs."""

import time
from pathlib import Path

from mqueue.client import Client
from tests.processes.broker import Broker
from tests.processes.place import Place
from tests.waiting import wait_until

WITHIN_S = 1.0
TASKS = """
import asyncio
import time

import e2e_notes

from mqueue import MQueue, current
from tests.waiting import wait_until

app = MQueue()


def note(text: str) -> None:
    e2e_notes.note(f"{text} {time.time()}")


@app.task(topic="jobs")
async def on_loop() -> None:
    note("on_loop begins")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note("on_loop ends")
        raise


@app.task(topic="jobs")
def in_thread() -> None:
    note("in_thread begins")
    wait_until(lambda: current().cancelled)
    note("in_thread ends")
    raise InterruptedError


@app.task(topic="jobs", executor="process")
def in_process() -> None:
    note("in_process begins")
    try:
        time.sleep(60)  # it is interrupted
    finally:
        note("in_process ends")


@app.task(topic="jobs")
def waits() -> None:
    note("waits runs")
"""


def test_running_jobs_are_cancelled_within_a_second(broker: Broker, tmp_path: Path) -> None:
    place = Place(tmp_path, broker, TASKS)
    names = ("on_loop", "in_thread", "in_process")
    with place.worker() as worker:
        place.python(f"import e2e_tasks as t; [getattr(t, name).enqueue() for name in {names}]; t.waits.options(delay=3600).enqueue()")
        wait_until(lambda: sum("begins" in line for line in place.lines()) == 3, "all three run", 30)
        with Client(broker.url, broker.token) as client:
            waiting, *running = (id for (id,) in broker.sql("SELECT id FROM message ORDER BY deliver_after_us DESC"))
            assert len(wait_until(lambda: broker.sql("SELECT id FROM message"), "all are flushed", 10)) == 4
            assert client.cancel(waiting).status == "cancelled"
            asked_at = time.time()
            assert [client.cancel(id).status for id in running] == ["cancelling"] * 3
            wait_until(lambda: sum("ends" in line for line in place.lines()) == 3, "all three have ended", 10)
            took = {line.split()[0]: float(line.split()[2]) - asked_at for line in place.lines() if "ends" in line}
            print(f"cancelled after {took}")
            assert max(took.values()) < WITHIN_S, took
            wait_until(lambda: all(client.message(id) is None for id in running), "they are settled", 10)
            counters = client.topics()[0].counters
            wait_until(lambda: client.topics()[0].counters.get("cancelled") == 4, f"the ledger has them: {counters}", 10)
            assert client.dead_letters("jobs") == []
        assert worker.stop() == 0
        assert not any("waits" in line for line in place.lines())
