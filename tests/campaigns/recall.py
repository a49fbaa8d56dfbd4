"""Priority recall: all slots of a worker busy, thousands waiting at priority 9; a message of priority 0 is the next to
start, each time.

    python -m tests.campaigns.recall --urgent 200

Once its enqueue is answered, no fetch may take another before it. What a fetch had taken earlier may still be on its
way then, and begin first: that is told apart by when each was leased.
"""

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mqueue.client import Client
from tests.campaigns.load.jobs import Crew, Load, Note
from tests.processes.broker import Broker
from tests.waiting import wait_until

from .campaign import finish, median, options, table

SLOTS = 50
BACKLOG = 5_000
JOB_S = (1.0, 3.0)
BUSY = 0.9  # of the slots, at least, before an urgent message comes: jobs begin and end all the time
LEASE_S = 60.0
WAIT_S = 60.0
PAUSE_S = 0.3


@dataclass
class Urgent:
    """`overtook`: what was leased between the answer to its enqueue and its own lease. `on_their_way`: what began
    before it, leased earlier.
    """

    answered: float
    began: float
    overtook: list[Note]
    on_their_way: int

    @property
    def slot_s(self) -> float:
        """Until it began, a slot having to become free."""
        return self.began - self.answered


@dataclass
class Found:
    urgent: list[Urgent] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)  # slots, as it was enqueued
    left: int = 0  # of the backlog, at the end
    workers: int = 0

    def overtaken(self) -> int:
        return sum(bool(each.overtook) for each in self.urgent)

    def good(self) -> bool:
        return bool(self.urgent) and not self.overtaken() and self.left > 0


def run(urgent: int, backlog: int = BACKLOG, seed: int = 1) -> Found:
    found, chance = Found(), random.Random(seed)
    with Broker() as broker, tempfile.TemporaryDirectory() as folder, Client(broker.url, broker.token) as client:
        with Crew(Path(folder), broker.url, broker.token) as crew:
            load = Load(client, 0.0, lambda _: ("rest", [0]), LEASE_S, seed)
            backlog_jobs = set(_fill(load, backlog, chance))
            crew.start("worker", "--concurrency", str(SLOTS)).wait_started()
            wait_until(lambda: len(crew.running("worker")) >= SLOTS - 1, "all slots are busy", WAIT_S)
            enqueued: dict[int, tuple[float, float]] = {}  # monotonic, wall
            for _ in range(urgent):
                wait_until(lambda: len(crew.running("worker")) >= BUSY * SLOTS, "the slots are busy", WAIT_S)
                found.busy.append(len(crew.running("worker")))
                number = load.one("rest", chance.uniform(*JOB_S), priority=0)
                enqueued[number] = (time.monotonic(), time.time())
                time.sleep(chance.random() * PAUSE_S)
            wait_until(lambda: enqueued.keys() <= {n.job for n in crew.notes()}, "all urgent ones have begun", WAIT_S)
            found.left = len(backlog_jobs - {n.job for n in crew.notes()})
        _judge(found, crew.notes(), enqueued)
    return found


def _fill(load: Load, backlog: int, chance: random.Random) -> list[int]:
    numbers: list[int] = []
    while len(numbers) < backlog:
        jobs: list[tuple[str, Sequence[object]]] = [("rest", [round(chance.uniform(*JOB_S), 3)]) for _ in range(min(1_000, backlog))]
        numbers += load.many(jobs, priority=9)
    return numbers


def _judge(found: Found, notes: Sequence[Note], enqueued: dict[int, tuple[float, float]]) -> None:
    begun = [note for note in notes if note.what == "began"]
    for index, note in enumerate(begun):
        if note.job in enqueued:
            answered, at = enqueued[note.job]
            overtook = [n for n in begun if at < n.leased < note.leased and n.job not in enqueued]
            earlier = [n for n in begun[:index] if n.at > answered and n.leased <= at and n.job not in enqueued]
            found.urgent.append(Urgent(answered, note.at, overtook, len(earlier)))


def report(found: Found) -> list[str]:
    times = [each.slot_s for each in found.urgent]
    rows = {
        "urgent messages": len(found.urgent),
        "slots busy, fewest": min(found.busy, default=0),
        "priority 9 left": found.left,
        "the next to start": len(found.urgent) - found.overtaken(),
        "overtaken": found.overtaken(),
        "behind what was on its way": sum(each.on_their_way > 0 for each in found.urgent),
        "until it started, median, ms": round(median(times) * 1000, 1),
        "until it started, most, ms": round(max(times, default=0) * 1000, 1),
    }
    return table(rows)


def main() -> int:
    given = options(__doc__, urgent=200, seed=1)
    found = run(given.urgent, seed=given.seed)
    overtook = [
        f"  job {note.job} was leased before it, and began {(each.began - note.at) * 1000:.1f} ms before it"
        for each in found.urgent
        for note in each.overtook
    ]
    return finish(found.good(), report(found), "an urgent message is the next to start", overtook)


if __name__ == "__main__":
    raise SystemExit(main())
