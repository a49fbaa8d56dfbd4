"""`@task(every=1)`: each tick is enqueued once and run, through a Redis that goes away and a leader that dies, with
what its code says.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from mqueue import wire
from mqueue.client import Client
from tests.processes.broker import Broker
from tests.processes.place import Place
from tests.processes.stores import Stores
from tests.waiting import wait_until

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
    wait_until(lambda: len(ids_of_ticks(place)) >= seen + count, what, 40)


def test_each_tick_runs_once_whoever_leads(stores: Stores, tmp_path: Path) -> None:
    with Broker(env=stores.environment()) as first:
        wait_until(lambda: first.metric("mqueue_leader") == 1, "the first leads")
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
                    wait_until(lambda: second.metric("mqueue_cold") == 1, "cold", 40)
                    until_more(place, 2, "it beats without Redis")
                wait_until(lambda: second.metric("mqueue_cold") == 0, "hot again", 40)
                until_more(place, 1, "it beats again")
                _, nightly = client.schedules()
                assert (nightly.cron, nightly.timezone, nightly.last_at) == ("0 4 * * *", "Europe/Berlin", None)
                client.pause_schedule("beat")
                wait_until(lambda: client.schedule("beat").last_at in ids_of_ticks(place), "the last one has run", 20)  # type: ignore[union-attr]
            finally:
                for worker in workers:
                    worker.kill()
                    worker.wait()
        ticks = ids_of_ticks(place)
        assert all(len(ids) == 1 for ids in ticks.values()), ticks
        begin = min(ticks)
        assert sorted(ticks) == [begin + timedelta(seconds=n) for n in range(len(ticks))], "none is missing"


GREETS = """
import os
from pathlib import Path

from mqueue import current, task


@task(every=1, topic="ticks", name="greet", args=({words},), kwargs={{"to": {to}}})
def greet(words: list[str], *, to: set[str]) -> None:
    with Path(os.environ["OUT"]).open("a") as file:
        file.write(f"{{' '.join(words)}}, {{' and '.join(sorted(to))}} {{current().metadata['tick']}}\\n")
"""


def test_other_arguments_in_the_code_change_the_schedule_and_not_its_ticks(tmp_path: Path) -> None:
    with Broker() as broker, Client(broker.url, broker.token) as client:

        def greeted(words: list[str], to: set[str]) -> list[str]:
            """The ticks of a deploy with these arguments."""
            said = f"{' '.join(words)}, {' and '.join(sorted(to))} "
            place = Place(tmp_path, broker, GREETS.format(words=words, to=to))
            before = len(place.lines())
            worker = place.worker()
            try:
                wait_until(lambda: sum(line.startswith(said) for line in place.lines()[before:]) >= 2, "it greets", 40)
                return [line.removeprefix(said) for line in place.lines() if line.startswith(said)]
            finally:
                worker.terminate()
                assert worker.wait(40) == 0

        first = greeted(["good", "morning"], {"ada", "bob"})
        kept = client.schedule("greet")
        assert kept is not None
        client.put_schedule("greet", wire.ScheduleItem(topic="ticks", every=1, payload=kept.payload, priority=3))
        assert set(first) <= set(greeted(["good", "morning"], {"bob", "ada"})), "a deploy that says the same"
        edited = client.schedule("greet")
        assert edited is not None
        assert (edited.priority, edited.payload) == (3, kept.payload), "what was edited stays"
        last = greeted(["good", "night"], {"eve"})
        changed = client.schedule("greet")
        assert changed is not None
        assert changed.priority == 0
        assert msgspec.json.decode(changed.payload) == {"task": "greet", "args": [["good", "night"]], "kwargs": {"to": ["eve"]}}
        offsets = {(datetime.fromisoformat(b) - datetime.fromisoformat(first[0])) % timedelta(seconds=1) for b in last}
        assert offsets == {timedelta(0)}, "they go on from the same beginning"
