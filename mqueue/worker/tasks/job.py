"""One delivery is being run; this is what the worker knows of it, and what its handler may ask about it."""

import math
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from enum import IntEnum
from typing import Any

from msgspec import Struct

from mqueue import message as m
from mqueue import wire
from mqueue.clock import elapsed_s
from mqueue.worker.tasks.task import Task

UNINTERRUPTED: "frozenset[Interrupt]" = frozenset()
_SURROGATE_OR_NUL = re.compile("[\0\ud800-\udfff]")  # what PostgreSQL cannot hold


class Progress(Struct, frozen=True, tag=True):
    """A handler says how far it is: 0 to 1."""

    fraction: float
    note: str | None = None


class Interrupt(IntEnum):
    """It says why a job is taken from its handler. Where there are several, the first in this order decides how the job
    ends (`mqueue.worker.running.ending`).
    """

    LOST = 1  # another delivery has its message, or the message is gone
    CANCELLED = 2  # somebody wants it no more
    STOPPING = 3  # the worker has no more time for it
    OVERDUE = 4  # it has run for as long as its task may


class Job:
    """It is a message that this worker holds, and what becomes of it here. `ended`: it has its outcome, or was given
    up.

    `interrupts` belong to the worker's loop, which alone adds to them; other threads may read them.
    """

    __slots__ = (
        "args",
        "batch",
        "began",
        "came",
        "cancel",
        "ended",
        "interrupts",
        "kwargs",
        "lease",
        "message",
        "over_at",
        "progress",
        "renew_at",
        "result",
        "task",
        "verdicts",
    )

    def __init__(self, message: wire.Message, task: Task[..., Any], args: list[Any], kwargs: dict[str, Any], lease: float) -> None:
        self.message = message
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.lease = lease  # seconds
        self.came = elapsed_s()
        self.began = self.renew_at = 0.0  # monotonic seconds
        self.over_at = math.inf  # when it has run for as long as it may
        self.batch: tuple[Job, ...] | None = None  # its jobs, where this is a batch of them
        self.verdicts: list[BaseException | None] = []  # of a batch's handler that has returned
        self.progress: Progress | None = None
        self.result: bytes | None = None  # of a handler that has returned, where its task keeps it
        self.ended = False
        self.interrupts = UNINTERRUPTED
        self.cancel: Callable[[], object] | None = None  # it is set while a handler runs on the loop, or in a process

    @property
    def members(self) -> "Sequence[Job]":
        """Gives the jobs that have a message each: those of a batch, else this one."""
        return self.batch or (self,)

    def interrupt(self, reason: Interrupt) -> None:
        """The job is to end for this reason, too. Who calls this tells its handler (`cancel`)."""
        self.interrupts |= {reason}


class Current:
    """It stands for the job that is running here. Of a batch, `id`, `attempt`, `metadata` and so on are those of its
    first.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def id(self) -> int:
        """Identifies its message."""
        return self._job.message.id

    @property
    def namespace(self) -> str:
        return self._job.message.namespace

    @property
    def topic(self) -> str:
        return self._job.message.topic

    @property
    def priority(self) -> int:
        return self._job.message.priority

    @property
    def created_at(self) -> datetime:
        """Says when it was enqueued, by the broker's clock; UTC."""
        return self._job.message.created_at

    @property
    def task(self) -> str:
        """Gives its task's name."""
        return self._job.task.name

    @property
    def attempt(self) -> int:
        """Counts its deliveries from 1."""
        return self._job.message.attempt

    @property
    def max_retries(self) -> int:
        return self._job.message.max_retries

    @property
    def cancelled(self) -> bool:
        """Has somebody cancelled it, is its lease lost, has it run for too long, or has the worker no more time for it?

        For a thread, to look at now and then.
        """
        return bool(self._job.interrupts)

    @property
    def batch(self) -> "list[Current]":
        """Gives the jobs of a batch, in the order of its items; it is empty where this is none."""
        return [Current(job) for job in self._job.batch or ()]

    def progress(self, fraction: float, note: str | None = None) -> None:
        """Tells how far it is, 0 to 1, and at what (200 characters are kept): seen in the message's status within a
        second or so.

        This is cheap: of calls that come fast, only some are sent. Raises ValueError, TypeError for what is no such
        number or text.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress({fraction}): from 0 to 1")
        if note is not None:
            note = _SURROGATE_OR_NUL.sub("\N{REPLACEMENT CHARACTER}", note)[: m.NOTE_MAX]
        self._job.progress = Progress(float(fraction), note)

    @property
    def metadata(self) -> dict[str, Any]:
        """Gives what the enqueuer added."""
        metadata = self._job.message.metadata
        return metadata if isinstance(metadata, dict) else {}


running: ContextVar[Job | None] = ContextVar("mqueue_job", default=None)


def current() -> Current:
    """Gives the running job, inside a task's handler. Raises RuntimeError elsewhere."""
    job = running.get()
    if job is None:
        raise RuntimeError("mqueue.current() is for a handler that a worker runs")
    return Current(job)
