"""It tells the broker who works here, and at what: from a thread and a client of its own, so that nothing waits for it.

A report goes out every BEAT_S, and sooner (LOOK_S) where a handler has told how far it is. Nothing depends on it: a
broker that does not take it is told of once, in the log.
"""

import os
import re
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from secrets import token_hex
from typing import Literal

import structlog

from mqueue import message as m
from mqueue import wire
from mqueue.clock import Clock
from mqueue.worker.tasks.job import Job, Progress
from mqueue.worker.traces import summary

BEAT_S = 2.0
LOOK_S = 0.5
GOODBYE_S = 1.0
LISTED_MAX = 200  # topics, tasks

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
log = structlog.get_logger("mqueue.worker")


def new_name() -> str:
    """Makes a name of host, process, and something that no other process has."""
    host = re.sub(r"[^A-Za-z0-9_.\-]", "-", socket.gethostname())[:64]
    return f"{host or 'worker'}-{os.getpid()}-{token_hex(3)}"


class Presence:
    """It reports from a thread. `tell` is blocking. `jobs`, `counts`: the worker's own, read while they change."""

    def __init__(
        self,
        tell: Callable[[wire.Worker], None],
        name: str,
        topics: Sequence[m.TopicName],
        tasks: Sequence[str],
        slots: int,
        jobs: Collection[Job],
        counts: Mapping[str, int],
        clock: Clock,
    ) -> None:
        self._tell = tell
        self._about = wire.Worker(
            name=name,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            version=_version(),
            topics=[str(topic) for topic in topics[:LISTED_MAX]],
            tasks=[task[: m.NAME_MAX] for task in tasks[:LISTED_MAX]],
            slots=slots,
            busy=0,
            started_at=EPOCH + timedelta(microseconds=clock.wall_us()),
            state="running",
        )
        self._jobs = jobs
        self._counts = counts
        self._clock = clock
        self._state: Literal["running", "stopping", "stopped"] = "running"
        self._told: dict[Job, Progress] = {}
        self._stopped = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="mqueue-presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stopping(self) -> None:
        """The next report says that the worker stops."""
        self._state = "stopping"

    def stop(self, *, heard: bool = True) -> None:
        """Says goodbye, for GOODBYE_S at most. Not `heard`: the broker does not answer, so nobody waits for that."""
        self._stopped.set()
        if self._thread.is_alive() and heard:
            self._thread.join(GOODBYE_S)

    def report(self) -> wire.Worker:
        """Describes the worker as it is now. Of very many jobs it names those that have told how far they are, and
        those that have run longest.
        """
        now = self._clock.monotonic()
        there = tuple(self._jobs)  # copied at once, since the loop changes it
        jobs = sorted(there, key=lambda job: (job.progress is None, job.began))
        about = self._about
        return wire.Worker(
            name=about.name, host=about.host, pid=about.pid, version=about.version, topics=about.topics, tasks=about.tasks, slots=about.slots,
            started_at=about.started_at, state=self._state, busy=len(jobs), counts=dict(self._counts),
            running=[running(job, now) for job in jobs[: m.RUNNING_MAX]],
        )  # fmt: skip

    def _run(self) -> None:
        told_at, told_state = float("-inf"), ""
        while not self._stopped.is_set():
            now = self._clock.monotonic()
            progress = {job: job.progress for job in tuple(self._jobs) if job.progress is not None}
            if now - told_at >= BEAT_S or progress != self._told or self._state != told_state:
                told_at, told_state, self._told = now, self._state, progress
                self._say()
            self._stopped.wait(LOOK_S)
        self._state = "stopped"
        self._say()

    def _say(self) -> None:
        try:
            self._tell(self.report())
        except Exception as error:
            if not self._failing:
                log.warning("the broker does not hear of this worker, trying on", error=summary(error))
            self._failing = True
        else:
            self._failing = False


def running(job: Job, now: float) -> wire.Running:
    """Describes a running job."""
    message, told = job.message, job.progress
    progress, note = (told.fraction, told.note) if told is not None else (None, None)
    return wire.Running(
        id=message.id, namespace=message.namespace, topic=message.topic, task=job.task.name[: m.NAME_MAX], attempt=message.attempt,
        seconds=round(max(0.0, now - job.began), 1), progress=progress, note=note,
    )  # fmt: skip


def _version() -> str:
    try:
        return version("mqueue")[:64]
    except PackageNotFoundError:
        return ""
