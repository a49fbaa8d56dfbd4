"""A worker killed, asleep past its leases, out of memory, while another goes on: its messages are elsewhere within the
lease and a second.

    python -m tests.campaigns.fallen --rounds 20

Work that the broker has settled never runs again, and what the sleeper says of its jobs when it wakes is refused. A
worker asleep with a poll that waits may be handed a message, its own too, as long as nobody knows that it sleeps: such
a message takes a lease more for each time, and is told by its attempts.
"""

import random
import signal
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mqueue.client import Client
from tests.campaigns.load.jobs import Crew, Load, Member, Note, acked, unfinished
from tests.processes.broker import Broker
from tests.waiting import TooLate, wait_until

from .campaign import finish, median, options, table

WAYS = ("killed", "asleep", "asleep and full", "out of memory")
LEASE_S = 2.0
FRESH = 3  # jobs that a worker begins just before it falls asleep
LATE_S = 1.0
RATE = 25.0  # jobs a second
PREY, WITNESS = "prey", "witness"
PREY_SLOTS, WITNESS_SLOTS = 10, 100
FIRST_S = 1.0
RECENT_S = 5.0
TOLD_S = 10.0
WAIT_S = 60.0
REFUSED, CANCELLED = "lease had ended, the job runs again", "lease lost, the job runs elsewhere"


@dataclass
class Fall:
    """`fell`: when. `elsewhere_s`: by job, from then until it began elsewhere, less one lease for each time the sleeper
    was handed it.

    `settled`: jobs that the broker had settled by then. `refused`, `cancelled`: what the sleeper was told when it woke.
    """

    way: str
    fell: float
    victims: dict[int, Note | None]
    settled: set[int]
    looked: float
    elsewhere_s: dict[int, float] = field(default_factory=dict)
    handed: int = 0
    refused: int = 0
    cancelled: int = 0


@dataclass
class Found:
    lease: float
    falls: list[Fall] = field(default_factory=list)
    jobs: int = 0
    lost: int = 0
    ran_again: list[Note] = field(default_factory=list)
    acked: int = 0
    untold: list[str] = field(default_factory=list)

    def slowest_s(self) -> float:
        return max((s for fall in self.falls for s in fall.elsewhere_s.values()), default=0.0)

    def late(self, late_s: float = LATE_S) -> int:
        return sum(s > self.lease + late_s for fall in self.falls for s in fall.elsewhere_s.values())

    def good(self, late_s: float = LATE_S) -> bool:
        whole = not self.lost and not self.ran_again and not self.untold and self.acked == self.jobs
        return whole and not self.late(late_s) and not self.showed_nothing()

    def showed_nothing(self) -> list[str]:
        """Falls that left no message behind, or woke to no job that was another's."""
        return [fall.way for fall in self.falls if not (fall.refused + fall.cancelled if fall.way.startswith("asleep") else fall.victims)]


def run(rounds: int, ways: Sequence[str] = WAYS, lease: float = LEASE_S, seed: int = 1) -> Found:
    """So many rounds of each way."""
    found, chance = Found(lease), random.Random(seed)
    with Broker() as broker, tempfile.TemporaryDirectory() as folder, Client(broker.url, broker.token, batch=True) as client:
        with Crew(Path(folder), broker.url, broker.token) as crew, Load(client, RATE, _short_job, lease, seed) as load:
            crew.start(WITNESS, "--concurrency", str(WITNESS_SLOTS)).wait_started()
            load.start()
            for _ in range(rounds):
                for way in ways:
                    found.falls.append(Round(way, crew, load, client, lease).run(chance, found))
            load.stop()
            found.jobs = len(load.known())
            wait_until(lambda: unfinished(client) == 0 and acked(client) >= found.jobs, "all is done", WAIT_S)
            found.acked = acked(client)
        _judge(found, crew.notes(), load.known())
    return found


def _short_job(chance: random.Random) -> tuple[str, Sequence[object]]:
    return chance.choice(("rest", "block")), [round(chance.uniform(0.02, 0.5), 3)]


def _judge(found: Found, notes: Sequence[Note], jobs: Iterable[int]) -> None:
    found.lost = len(set(jobs) - {note.job for note in notes if note.what == "ended"})
    for fall in found.falls:
        found.ran_again += [note for note in notes if note.what == "began" and note.job in fall.settled and note.at > fall.looked]


class Round:
    """One worker that falls while another goes on."""

    def __init__(self, way: str, crew: Crew, load: Load, client: Client, lease: float) -> None:
        self._way, self._crew, self._load, self._client, self._lease = way, crew, load, client, lease
        self._began = time.monotonic()
        self._long: set[int] = set()  # jobs that still run elsewhere when the sleeper wakes

    def run(self, chance: random.Random, found: Found) -> Fall:
        prey = self._crew.start(PREY, "--concurrency", str(PREY_SLOTS))
        prey.wait_started()
        fall = self._seen(self._fell(prey, chance))
        wait_until(lambda: self._all_elsewhere(fall), f"{self._way}: all of it has begun elsewhere", WAIT_S)
        if self._way.startswith("asleep"):
            found.untold += self._woken(fall, prey)
        prey.kill()
        self._crew.workers.remove(prey)
        return fall

    def _fell(self, prey: Member, chance: random.Random) -> float:
        """When."""
        if self._way == "out of memory":
            wait_until(lambda: self._devoured(prey), "it has got a job that takes all its memory", WAIT_S)
            return time.monotonic()
        if self._way == "killed":
            time.sleep(chance.random() * self._lease / 3)
            wait_until(lambda: len(self._running()) >= 2, "it has begun some jobs", WAIT_S)
        else:
            self._occupy(PREY_SLOTS if self._way == "asleep and full" else FRESH)
        fell = time.monotonic()
        prey.signal(signal.SIGKILL if self._way == "killed" else signal.SIGSTOP)
        return fell

    def _devoured(self, prey: Member) -> bool:
        """Whether it has ended. Else it is offered one more of the jobs that end it."""
        if prey.process.poll() is None:
            self._load.one("devour", PREY)
        return prey.process.poll() is not None

    def _occupy(self, slots: int) -> None:
        """Returns when so many slots are busy, some of them with fresh jobs: those end soon after in their first life,
        and take long in their second.
        """
        more = 0.0

        def busy() -> tuple[int, int]:
            nonlocal more
            now, running = time.monotonic(), self._running()
            fresh = sum(job in self._long and note.at > now - FIRST_S / 2 for job, note in running.items())
            if now > more and (len(running) < slots or fresh < FRESH):
                self._long.update(self._load.many([("again", (FIRST_S, 10.0))] * 2 * PREY_SLOTS, priority=-1))
                more = now + FIRST_S / 2
            return len(running), fresh

        what = f"{slots} slots are busy, {FRESH} of them with fresh jobs"
        wait_until(busy, what, WAIT_S, enough=lambda counts: counts[0] >= slots and counts[1] >= FRESH)

    def _running(self) -> dict[int, Note]:
        """By the worker of this round: those of the name before it have left jobs that they never end."""
        return {job: note for job, note in self._crew.running(PREY).items() if note.at > self._began}

    def _seen(self, fell: float) -> Fall:
        """What it leaves: jobs that it was running, or that have begun nowhere yet; and which of the latest are
        settled.
        """
        ids, last = self._load.known(), {note.job: note for note in self._crew.notes()}
        victims: dict[int, Note | None] = {job: None for job in ids if job not in last} | self._running()
        recent = [job for job, note in last.items() if note.what == "ended" and note.at > fell - RECENT_S and job in ids]
        settled = {job for job in recent if self._client.message(ids[job]) is None}
        return Fall(self._way, fell, victims, settled, time.monotonic())

    def _all_elsewhere(self, fall: Fall) -> bool:
        for note in self._crew.notes():
            if note.job in fall.victims and note.job not in fall.elsewhere_s and note.worker != PREY:
                before = fall.victims[note.job]
                if before is not None and note.attempt <= before.attempt:
                    continue
                handed = note.attempt - 1 - (before.attempt if before is not None else 0) if self._way == "asleep" else 0
                fall.handed += handed
                fall.elsewhere_s[note.job] = note.at - fall.fell - handed * self._lease
        return len(fall.elsewhere_s) == len(fall.victims)

    def _woken(self, fall: Fall, prey: Member) -> list[str]:
        """Wakes it. It should be told of each of its jobs that runs elsewhere: the messages of which it is not.

        What has ended elsewhere by then is gone.
        """
        ids, ended = self._load.known(), {note.job for note in self._crew.notes() if note.what == "ended" and note.worker != PREY}
        mine = {ids[job] for job, note in fall.victims.items() if note is not None and job in self._long - ended}
        prey.signal(signal.SIGCONT)
        refused: set[int] = set()
        cancelled: set[int] = set()

        def untold() -> set[int]:
            refused.update(mine.intersection(prey.events(REFUSED)))
            cancelled.update(mine.intersection(prey.events(CANCELLED)))
            return mine - refused - cancelled

        with suppress(TooLate):  # what it is not told is a finding
            wait_until(untold, "it is told of its jobs", TOLD_S, enough=lambda left: not left)
        fall.refused, fall.cancelled = len(refused), len(cancelled - refused)
        return [f"{self._way}: message {id}" for id in mine - refused - cancelled]


def report(found: Found) -> list[str]:
    lines = [f"{'':16}{'falls':>8}{'messages':>10}{'median, s':>11}{'slowest, s':>12}{'handed':>8}{'refused':>9}{'cancelled':>11}"]
    for way in dict.fromkeys(fall.way for fall in found.falls):
        falls = [fall for fall in found.falls if fall.way == way]
        times = [s for fall in falls for s in fall.elsewhere_s.values()]
        handed, refused, cancelled = (sum(getattr(fall, name) for fall in falls) for name in ("handed", "refused", "cancelled"))
        lines.append(
            f"{way:16}{len(falls):>8}{len(times):>10}{median(times):>11.2f}{max(times, default=0.0):>12.2f}"
            f"{handed:>8}{refused:>9}{cancelled:>11}"
        )
    rows = {
        "lease, s": found.lease,
        "jobs": found.jobs,
        "acked": found.acked,
        "settled, and watched": sum(len(fall.settled) for fall in found.falls),
        "lost": found.lost,
        "ran again though settled": len(found.ran_again),
        "later than lease + 1 s": found.late(),
        "the sleeper was not told": len(found.untold),
        "falls that showed nothing": len(found.showed_nothing()),
    }
    return lines + table(rows)


def main() -> int:
    given = options(__doc__, rounds=20, seed=1)
    found = run(given.rounds, seed=given.seed)
    claim = f"elsewhere within the lease and {LATE_S:g} s, nothing settled runs again"
    return finish(found.good(), report(found), claim, [*found.untold, *found.showed_nothing(), *map(str, found.ran_again)])


if __name__ == "__main__":
    raise SystemExit(main())
