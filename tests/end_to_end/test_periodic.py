"""`@task(every=1)`: each tick is enqueued once and run, through a Redis that goes away and a leader that dies."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mqueue.client import Client

from .broker import Broker, until
from .place import Place
from .stores import Stores

TASKS = """
import os
from pathlib import Path

from mqueue import current, task


@task(every=1, topic="ticks", name="beat")
def beat() -> None:
    with Path(os.environ["OUT"]).open("a") as file:
        file.write(f"{current().metadata['tick']} {current().id}\\n")


@task(cron="0 4 * * *", timezone="Europe/Berlin", topic="ticks", name="nightly")
def nightly() -> None: ...
"""


@pytest.fixture
def stores(data_dir: Path) -> Iterator[Stores]:
    stores = Stores(data_dir)
    yield stores
    stores.close()


def ids_of_ticks(place: Place) -> dict[datetime, set[str]]:
    """A job may run twice, where Redis was lost; an id stands for one enqueue."""
    ids: dict[datetime, set[str]] = {}
    for line in place.lines():
        tick, id = line.split()
        ids.setdefault(datetime.fromisoformat(tick), set()).add(id)
    return ids


def until_more(place: Place, count: int, what: str) -> None:
    seen = len(ids_of_ticks(place))
    until(lambda: len(ids_of_ticks(place)) >= seen + count, 40, what)


def test_each_tick_runs_once_whoever_leads(stores: Stores, tmp_path: Path) -> None:
    with Broker(env=stores.environment()) as first:
        until(lambda: first.metric("mqueue_leader") == 1, what="the first leads")
        with Broker(env=stores.environment()) as second, Client(second.url, second.token) as client:
            place = Place(tmp_path, second, TASKS)
            workers = [place.worker(), place.worker()]  # each declares the same
            try:
                until_more(place, 1, "it beats")
                first.kill()
                until_more(place, 2, "it beats on")
                assert second.metric("mqueue_leader") == 1
                first.start()  # nobody waits for it then, when Redis goes
                with stores.without("valkey"):
                    until(lambda: second.metric("mqueue_cold") == 1, 40, "cold")
                    until_more(place, 2, "it beats without Redis")
                until(lambda: second.metric("mqueue_cold") == 0, 40, "hot again")
                until_more(place, 1, "it beats again")
                _, nightly = client.schedules()
                assert (nightly.cron, nightly.timezone, nightly.last_at) == ("0 4 * * *", "Europe/Berlin", None)
                client.pause_schedule("beat")
                until(lambda: client.schedule("beat").last_at in ids_of_ticks(place), 20, "the last one has run")  # type: ignore[union-attr]
            finally:
                for worker in workers:
                    worker.kill()
                    worker.wait()
        ticks = ids_of_ticks(place)
        assert all(len(ids) == 1 for ids in ticks.values()), ticks
        begin = min(ticks)
        assert sorted(ticks) == [begin + timedelta(seconds=n) for n in range(len(ticks))], "none is missing"
