"""Rolling restarts of two workers under load: no attempt is spent, nothing is lost, every job is completed.

    python -m tests.campaigns.deploy --restarts 20

One worker has grace for its jobs of two seconds, and ends them; the other's grace is too short: what it was running
goes back at once and begins again. Neither may cost an attempt.
"""

import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mqueue.client import Client
from tests.campaigns.load.jobs import Crew, Load, Member, acked, unfinished
from tests.processes.broker import Broker
from tests.waiting import wait_until

from .campaign import finish, median, options, table

GRACES = {"patient": "30s", "hasty": "0.5s"}
SLOTS = 30
JOB_S = 2.0
RATE = 8.0  # jobs a second
LEASE_S = 30.0  # no lease ends by itself: whatever comes back was handed back
WAIT_S = 90.0


@dataclass
class Found:
    """`stop_s`: by worker, from SIGTERM until it had ended. `began`: how often each job did."""

    jobs: int = 0
    acked: int = 0
    lost: int = 0
    spent: int = 0  # deliveries beyond the first attempt
    codes: Counter[int] = field(default_factory=Counter)
    stop_s: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in GRACES})
    began: Counter[int] = field(default_factory=Counter)

    def good(self) -> bool:
        return not self.lost and not self.spent and self.acked == self.jobs and set(self.codes) == {0}


def run(restarts: int, job_s: float = JOB_S, seed: int = 1) -> Found:
    found = Found()
    with Broker() as broker, tempfile.TemporaryDirectory() as folder, Client(broker.url, broker.token, batch=True) as client:
        with (
            Crew(Path(folder), broker.url, broker.token) as crew,
            Load(client, RATE, lambda chance: _job(chance, job_s), LEASE_S, seed) as load,
        ):
            workers = {name: _start(crew, name) for name in GRACES}
            for worker in workers.values():
                worker.wait_started()
            load.start()
            for _, name in zip(range(restarts), [*GRACES] * restarts, strict=False):
                wait_until(lambda name=name: len(crew.running(name)) >= 3, f"{name} has jobs", WAIT_S)
                asked = time.monotonic()
                workers[name].signal(signal.SIGTERM)
                found.codes[workers[name].ended(WAIT_S)] += 1
                found.stop_s[name].append(time.monotonic() - asked)
                crew.workers.remove(workers[name])
                workers[name] = _start(crew, name)
                workers[name].wait_started()
            load.stop()
            found.jobs = len(load.known())
            wait_until(lambda: unfinished(client) == 0 and acked(client) >= found.jobs, "all is done", WAIT_S)
            found.acked = acked(client)
        notes = crew.notes()
        found.lost = len(set(load.known()) - {note.job for note in notes if note.what == "ended"})
        found.spent = sum(note.what == "began" and note.attempt != 1 for note in notes)
        found.began = Counter(note.job for note in notes if note.what == "began")
    return found


def _start(crew: Crew, name: str) -> Member:
    return crew.start(name, "--concurrency", str(SLOTS), "--grace", GRACES[name])


def _job(chance: random.Random, job_s: float) -> tuple[str, Sequence[object]]:
    return chance.choice(("rest", "block")), [job_s]


def report(found: Found) -> list[str]:
    lines = [
        f"{name:8} grace {grace:>4}: {len(times)} restarts, each took {median(times):.2f} s (median), {max(times, default=0):.2f} s"
        for (name, grace), times in zip(GRACES.items(), found.stop_s.values(), strict=True)
    ]
    rows = {
        "jobs": found.jobs,
        "acked": found.acked,
        "handed back and begun again": sum(found.began.values()) - len(found.began),
        "lost": found.lost,
        "attempts spent": found.spent,
        "exit codes other than 0": sum(found.codes.values()) - found.codes[0],
    }
    return lines + table(rows)


def main() -> int:
    given = options(__doc__, restarts=20, seed=1)
    found = run(given.restarts, seed=given.seed)
    return finish(found.good(), report(found), "no attempt spent, nothing lost, each job acked once")


if __name__ == "__main__":
    raise SystemExit(main())
