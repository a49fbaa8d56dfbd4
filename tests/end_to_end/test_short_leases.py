"""Jobs whose lease is shorter than what a busy worker needs to renew it: none of them dies of that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.broker import Broker
from tests.processes.place import Place
from tests.waiting import wait_until

JOBS = 1500
TASKS = """
import threading

from mqueue import task
from e2e_notes import note


@task(topic="short", lease=0.05, max_retries=1)
def job(n: int) -> None:
    threading.Event().wait(0.2)  # a job is longer than its lease
    note(str(n))
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Broker() as broker:
        yield Place(tmp_path, broker, TASKS)


def test_a_lease_shorter_than_a_round_trip_kills_no_job(place: Place) -> None:
    place.python(f"from e2e_tasks import job\njob.app.enqueue_many([job.message(n) for n in range({JOBS})])")
    with place.worker("--concurrency", "500") as worker:
        wait_until(lambda: len({*place.lines()}) == JOBS, "all have run", 120)
        assert worker.stop() == 0
    again = len(place.lines()) - JOBS  # on a busy machine some do, before the worker fetches less; with leases as they were, nearly all
    assert again < JOBS / 3, f"{again} ran again:\n{place.log()[-2000:]}"
