"""Loop, threads and processes of one `mqueue worker` against a real broker: limits, accidents, a blocked loop, a
stop.
"""

import json
from pathlib import Path

from mqueue.client import Client
from tests.processes.broker import Broker
from tests.processes.place import Place
from tests.waiting import wait_until

TASKS = """
import os
import time

from e2e_notes import note

from mqueue import MQueue, current

app = MQueue()


@app.task(topic="jobs", lease=1)
async def blocks() -> None:
    note(f"blocks {current().attempt}")
    time.sleep(5)  # the loop, five leases long
    note("blocked")


@app.task(topic="jobs", executor="process")
def crunch(n: int) -> None:
    note(f"crunch {os.getpid()} {sum(range(n))}")


@app.task(topic="jobs", executor="process", time_limit=1, max_retries=0)
def endless() -> None:
    while True:
        pass


@app.task(topic="jobs", executor="process", memory_limit_mb=200, max_retries=0)
def hungry() -> None:
    held = []
    while True:
        held.append(bytes(os.urandom(1 << 20)))


@app.task(topic="jobs", executor="process", max_retries=0)
def crash() -> None:
    os._exit(7)


@app.task(topic="jobs", executor="process")
def chain() -> None:
    crunch.enqueue(10)


@app.task(topic="jobs", executor="process", lease=1)
def long() -> None:
    note(f"long {current().attempt}")
    time.sleep(60)  # it is killed
"""


def test_a_process_that_ends_ends_alone_and_says_why(broker: Broker, tmp_path: Path) -> None:
    place = Place(tmp_path, broker, TASKS)
    with place.worker() as worker:
        place.python("import e2e_tasks as t; t.endless.enqueue(), t.hungry.enqueue(), t.crash.enqueue(), t.chain.enqueue()")
        place.python("import e2e_tasks as t; t.app.enqueue_many(t.crunch.message(1000) for _ in range(20))")
        with Client(broker.url, broker.token) as client:
            dead = wait_until(lambda: len(found := client.dead_letters("jobs")) == 3 and found, "three are dead", 30)
        wait_until(lambda: len(place.lines()) == 21, "the others have run", 30)
        errors = sorted((each.error or "").rpartition("outcome.")[2] for each in dead)
        assert errors == [
            "MemoryLimit: the job held more than its memory_limit_mb=200: its process was killed",
            "ProcessEnded: the process of the job exited with code 7 before the job had ended",
            "TimeLimit: the job ran longer than its time_limit=1 s: its process was killed",
        ]
        assert [each.attempts for each in dead] == [1, 1, 1]
        assert worker.stop() == 0


def test_a_blocked_loop_keeps_its_leases_and_is_told_of(broker: Broker, tmp_path: Path) -> None:
    place = Place(tmp_path, broker, TASKS)
    with place.worker() as worker:
        place.python("import e2e_tasks as t; t.blocks.enqueue()")
        wait_until(lambda: "blocked" in place.lines(), "it has run", 30)
        wait_until(lambda: "no longer blocked" in place.log(), "the log has it", 10)
        [told] = [line for line in map(json.loads, place.log().splitlines()) if line["event"] == "event loop blocked"]
        assert "in blocks" in told["stack"] and "time.sleep(5)" in told["stack"]
        assert worker.stop() == 0
        assert place.lines() == ["blocks 1", "blocked"]


def test_a_process_that_outlives_the_grace_is_ended_and_its_job_goes_back_unharmed(broker: Broker, tmp_path: Path) -> None:
    place = Place(tmp_path, broker, TASKS)
    with place.worker("--grace", "1s") as first:
        place.python("import e2e_tasks as t; t.long.enqueue()")
        wait_until(lambda: place.lines() == ["long 1"], "it runs", 20)
        assert first.stop() == 0
    with place.worker("--grace", "1s"):
        wait_until(lambda: place.lines() == ["long 1", "long 1"], "it runs again, and no attempt was counted", 20)
