"""A lone broker is away longer than a lease, killed or frozen: time without any broker is no time of a lease. The jobs
that go on meanwhile are not run twice.
"""

import time
from pathlib import Path

import pytest

from tests.processes.broker import Broker, asleep, free_ports
from tests.processes.place import Place
from tests.waiting import wait_until

AWAY_S = 6.0  # longer than the lease
JOBS = 6
TASKS = """
import threading

from e2e_notes import note
from mqueue import current, task


@task(topic="long", lease=3.0, max_retries=0)
def long(name: int) -> None:
    note(f"{name} begins {current().attempt}")
    threading.Event().wait(12.0)
    note(f"{name} ends")
"""


def nobody_for(seconds: float) -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > seconds, "nobody is there for so long", seconds + 10)


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_jobs_that_run_while_the_only_broker_is_away_run_once(tmp_path: Path, how: str) -> None:
    [port] = free_ports(1)
    with Broker("--port", str(port)) as broker:
        place = Place(tmp_path, broker, TASKS)
        place.python(f"import e2e_tasks as t\nfor n in range({JOBS}): t.long.enqueue(n)")
        with place.worker("--concurrency", str(JOBS)) as worker:
            wait_until(lambda: len(place.lines()) == JOBS, "all run", 30)
            if how == "frozen":
                with asleep(broker):
                    nobody_for(AWAY_S)
            else:
                broker.kill()
                nobody_for(AWAY_S)
                broker.start()
            wait_until(lambda: sum("ends" in line for line in place.lines()) >= JOBS, "they end", 60)
            wait_until(lambda: broker.sql("SELECT coalesce(sum(acked + dead), 0)::int FROM topic") == [(JOBS,)], "each has its end", 30)
            assert sorted(place.lines()) == sorted(f"{n} {what}" for n in range(JOBS) for what in ("begins 1", "ends"))
            assert broker.sql("SELECT coalesce(sum(dead), 0)::int FROM topic") == [(0,)]
            worker.stop()
