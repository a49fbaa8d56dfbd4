"""Jobs that note when they begin and end, workers of a name as processes of their own, and a load of jobs for them.

The monotonic clock is the machine's: what jobs note and what a campaign sees are on one scale.
"""

import itertools
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from mqueue import wire
from mqueue.client import Client
from mqueue.errors import MQueueError
from tests.processes.broker import Broker
from tests.waiting import wait_until

START_S = 40.0
TOPIC = "jobs"

TASKS = """
import asyncio
import os
import resource
import time

from mqueue import MQueue, current

OUT = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
WORKER = os.environ["WORKER"]
MB = 1 << 20
app = MQueue()


def note(what: str, n: int) -> None:
    message = current()._job.message
    leased = message.lease_expires_at.timestamp() - message.lease  # as the broker has it
    os.write(OUT, f"{what} {n} {current().attempt} {WORKER} {time.monotonic():.6f} {leased:.6f}\\n".encode())


@app.task(topic="jobs", name="rest")
async def rest(n: int, seconds: float) -> None:
    note("began", n)
    await asyncio.sleep(seconds)
    note("ended", n)


@app.task(topic="jobs", name="block")
def block(n: int, seconds: float) -> None:
    note("began", n)
    time.sleep(seconds)
    note("ended", n)


@app.task(topic="jobs", name="again")
def again(n: int, first: float, later: float) -> None:
    "Takes longer when it is not the first attempt."
    note("began", n)
    time.sleep(first if current().attempt == 1 else later)
    note("ended", n)


@app.task(topic="jobs", name="devour")
def devour(n: int, worker: str) -> None:
    "In that worker: takes all the memory the process may have, then aborts as native code does."
    note("began", n)
    if WORKER == worker:
        used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 128 * MB, resource.getrlimit(resource.RLIMIT_AS)[1]))
        held = []
        try:
            while True:
                held.append(bytearray(MB))
        except MemoryError:
            os.abort()
    note("ended", n)
"""


@dataclass(frozen=True, slots=True)
class Note:
    """`at`: monotonic seconds. `leased`: by the shard's clock, which is the machine's wall clock here; of the first
    lease.
    """

    what: str
    job: int
    attempt: int
    worker: str
    at: float
    leased: float


class Crew:
    """A folder with the tasks above, and workers that run them; at the end they are killed."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        (folder / "e2e_jobs.py").write_text(TASKS)
        self._folder, self._out = folder, folder / "out"
        self._out.touch()
        self._environment = Broker.environment({"MQUEUE_URL": url, "MQUEUE_TOKEN": token, "OUT": str(self._out), "PYTHONPATH": str(folder)})
        self._read = 0
        self._notes: list[Note] = []
        self.workers: list[Member] = []

    def start(self, name: str, *options: str, more: Mapping[str, str] | None = None) -> "Member":
        """Returns once it has told the broker's address to its log: it may not have fetched yet."""
        member = Member(name, self._folder / f"{name}.log", self._folder, self._environment | {"WORKER": name} | dict(more or {}), options)
        self.workers.append(member)
        return member

    def notes(self) -> list[Note]:
        """All so far, in the order they were written."""
        with self._out.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            what, job, attempt, worker, at, leased = line.split()
            self._notes.append(Note(what, int(job), int(attempt), worker, float(at), float(leased)))
        return self._notes

    def running(self, worker: str) -> dict[int, Note]:
        """What has begun there and not ended."""
        open_: dict[int, Note] = {}
        for note in self.notes():
            if note.worker == worker:
                open_[note.job] = note
        return {job: note for job, note in open_.items() if note.what == "began"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.workers:
            member.kill()


class Member:
    """One worker process. Its log is kept over its lives."""

    def __init__(self, name: str, log: Path, folder: Path, environment: Mapping[str, str], options: Sequence[str]) -> None:
        self.name, self._log = name, log
        self._from = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "mqueue.cli", "worker", "e2e_jobs", *options]
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out, preexec_fn=_no_core)

    def wait_started(self) -> None:
        wait_until(lambda: '"event": "started"' in self.log() or self.process.poll() is not None, f"worker {self.name} has started", START_S)
        assert self.process.poll() is None, self.log()[-2000:]

    def log(self) -> str:
        """Of this life."""
        with self._log.open("rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    def events(self, event: str) -> list[int]:
        """The ids of the messages that such lines of the log name."""
        lines = (msgspec.json.decode(line) for line in self.log().splitlines() if line.startswith("{") and event in line)
        return [line["id"] for line in lines if line["event"] == event]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self, seconds: float) -> int:
        """Its exit code."""
        return self.process.wait(seconds)


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@dataclass
class Load:
    """Enqueues `rate` jobs a second from a thread, each named by a number. `make(chance)` gives task and arguments
    after the number.
    """

    client: Client
    rate: float
    make: Callable[[random.Random], tuple[str, Sequence[object]]]
    lease: float
    seed: int = 1
    ids: dict[int, int] = field(default_factory=dict)  # by number: acknowledged
    refused: int = 0

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def one(self, task: str, *args: object, priority: int = 0) -> int:
        """Enqueue one job; its number. Raises what the client does."""
        [number] = self.many([(task, args)], priority)
        return number

    def many(self, jobs: Sequence[tuple[str, Sequence[object]]], priority: int = 0) -> list[int]:
        with self._lock:
            numbers = [next(self._numbers) for _ in jobs]
        items = [
            wire.EnqueueItem(
                topic=TOPIC,
                payload=msgspec.json.encode({"task": task, "args": [number, *args]}),
                priority=priority,
                lease=self.lease,
                max_retries=1000,
            )
            for number, (task, args) in zip(numbers, jobs, strict=True)
        ]
        ids = self.client.enqueue_many(items)
        with self._lock:
            self.ids.update(zip(numbers, ids, strict=True))
        return numbers

    def known(self) -> dict[int, int]:
        with self._lock:
            return dict(self.ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)
            assert not self._thread.is_alive(), "the load does not end"

    def _run(self) -> None:
        chance = random.Random(self.seed)
        due = time.monotonic()
        while not self._stop.is_set():
            task, args = self.make(chance)
            try:
                self.one(task, *args)
            except MQueueError:
                self.refused += 1
            due = max(due + chance.expovariate(self.rate), time.monotonic() - 0.1)
            self._stop.wait(max(0.0, due - time.monotonic()))


def acked(client: Client) -> int:
    """What the broker has counted of TOPIC."""
    return sum(topic.counters.get("acked", 0) for topic in client.topics() if topic.topic == TOPIC)


def unfinished(client: Client) -> int:
    """Messages of TOPIC that have not ended."""
    return sum(t.ready + t.delayed + t.leased + t.waiting for t in client.topics() if t.topic == TOPIC)
