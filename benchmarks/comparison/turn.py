"""One turn of one system: its store, its producer and its workers are started, measured, and stopped.

The latency comes first, while the queue is empty. What the enqueues leave behind is what the workers drain. The
processor time is of all processes of the system: of an enqueue until its server is quiet again, so that what the server
put off (a flush, a vacuum) is counted; of a job while the workers drain a queue that does not run dry.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.environments import Interpreter
from benchmarks.comparison.processes import Process, cpu_s, running, wait_quiet
from benchmarks.comparison.stores import Server, serving
from benchmarks.comparison.systems import System
from benchmarks.peers.job import RECORD
from benchmarks.row import percentile

LOOK_S = 0.01
START_S = 60.0  # for the first job of a worker that starts
BOTH_S = 10.0  # for a job of each worker
WARM_S = 0.5
STALLED_S = 2.0  # without a job: the queue is dry
BACKLOG = 2_000  # a second of drain, the least
MARGIN = 1.3
TRIES, MORE = 4, 4
SHARE = 0.5  # of the time of a measure, the least for a drain

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """`about` is what the producer says of the system, `measures` a number for each measure that it has."""

    about: dict[str, Any]
    measures: dict[str, float]


def take_turn(system: System, interpreter: Interpreter, folder: Path, seconds: float, tell: Tell) -> Turn:
    """Raises RuntimeError or TimeoutError for a system that does not work."""
    path = {"PYTHONPATH": os.pathsep.join(map(str, interpreter.path)), "BENCH_DONE": str(folder / "done")}
    tell("starting")
    with serving(system.store, interpreter, folder, path) as server:
        inside = path | server.inside
        command = [str(interpreter.python), "-m", "benchmarks.peers.produce", system.module]
        with running([command], folder, folder / "producer.log", inside, talk=True) as [producer]:
            about = json.loads(producer.line())
            work = _Work(server, producer, about, folder, inside, seconds, tell)
            return Turn(about, work.latency() | work.enqueues() | work.drains())


class _Work:
    """It measures a system that runs."""

    def __init__(
        self, server: Server, producer: Process, about: dict[str, Any], folder: Path, inside: dict[str, str], seconds: float, tell: Tell
    ) -> None:
        self._server, self._producer, self._about = server, producer, about
        self._folder, self._inside, self._seconds, self._tell = folder, inside, seconds, tell
        self._done = Done(folder / "done")
        self._sent = int(about["sent"])
        self._enqueue_ms = 0.0

    def latency(self) -> dict[str, float]:
        self._tell("latency")
        with self._workers(1) as workers:
            self._await(lambda: self._done.count() >= self._sent, workers, "the first jobs")
            time.sleep(WARM_S)
            before = self._sent
            self._produce("paced", seconds=self._seconds)
            self._await(lambda: self._done.count() >= self._sent, workers, "the last job of the latency")
        delays = [seconds * 1_000 for seconds, _ in self._done.records(before)]
        return {"p50_ms": percentile(delays, 0.5), "p99_ms": percentile(delays, 0.99)}

    def enqueues(self) -> dict[str, float]:
        measures = {}
        for kind in ("one", "many", "bulk") if self._about["bulk"] else ("one", "many"):
            self._tell(f"enqueue, {kind}")
            pids = [self._server.pid, self._producer.pid]
            wait_quiet(pids)
            before = cpu_s(pids)
            sent, took = self._produce(kind, seconds=self._seconds)
            measures[kind] = sent / took
            wait_quiet(pids)
            if kind == "one":
                self._enqueue_ms = 1_000 * (cpu_s(pids) - before) / sent
        return measures

    def drains(self) -> dict[str, float]:
        one, drain_ms = self._drain_enough(1, BACKLOG)
        two, _ = self._drain_enough(2, 2 * one)
        return {"drain_1": one, "drain_2": two, "cpu_ms": self._enqueue_ms + drain_ms}

    def _drain_enough(self, count: int, rate: float) -> tuple[float, float]:
        """Drains, and if the queue ran dry, again with a fuller one. `rate`: it is filled for so many jobs a second."""
        for _ in range(TRIES):
            if (measured := self._drain(count, rate)) is not None:
                return measured
            rate *= MORE
        raise RuntimeError(f"the queue ran dry, though it was filled for {rate / MORE:,.0f} jobs a second")

    def _drain(self, count: int, rate: float) -> tuple[float, float] | None:
        """Returns jobs a second, and processor milliseconds a job; None where the queue ran dry too early."""
        self._tell(f"drain, {count}")
        missing = int(rate * MARGIN * (self._seconds + 2 * WARM_S)) - (self._sent - self._done.count())
        if missing > 0:
            self._produce("fill", count=missing)
        wait_quiet([self._server.pid])
        before = self._done.count()
        with self._workers(count) as workers:
            self._await(lambda: self._done.count() > before, workers, "the first job")
            self._await(lambda: self._done.processes(before) >= count, workers, "a job of each worker", BOTH_S)
            time.sleep(WARM_S)
            pids = [self._server.pid, *(worker.pid for worker in workers)]
            first, began, cpu = self._done.count(), time.monotonic(), cpu_s(pids)
            last, ended = first, began
            while (now := time.monotonic()) < began + self._seconds and now < ended + STALLED_S:
                time.sleep(LOOK_S)
                if (count_now := self._done.count()) > last:
                    last, ended = count_now, time.monotonic()
            cpu = cpu_s(pids) - cpu
        if last == first or (ended - began < SHARE * self._seconds and self._done.count() >= self._sent):
            return None
        return (last - first) / (ended - began), 1_000 * cpu / (last - first)

    def _workers(self, count: int) -> AbstractContextManager[list[Process]]:
        return running(self._about["workers"][count - 1], self._folder, self._folder / "worker.log", self._inside)

    def _produce(self, kind: str, **how: float) -> tuple[int, float]:
        self._producer.tell(json.dumps({"kind": kind, **how}))
        said = json.loads(self._producer.line())
        self._sent += said["sent"]
        return said["sent"], said["seconds"]

    @staticmethod
    def _await(condition: Callable[[], bool], workers: list[Process], what: str, within_s: float = START_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            for worker in workers:
                worker.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {within_s:g} s")
            time.sleep(LOOK_S)


class Done:
    """The file that the jobs write to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def count(self) -> int:
        return self._path.stat().st_size // RECORD.size

    def records(self, since: int = 0) -> list[tuple[float, int]]:
        """Returns for each job, after the first `since`, the seconds that it was on its way, and its process."""
        with self._path.open("rb") as file:
            file.seek(since * RECORD.size)
            data = file.read()
        return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))

    def processes(self, since: int) -> int:
        """Returns in how many processes jobs ran, after the first `since`."""
        return len({process for _, process in self.records(since)})
