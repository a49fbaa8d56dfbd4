"""A job is one delivery that is being run. Its handler may ask about it by `current()`."""

import math
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from msgspec import Struct

from mqueue import message as m
from mqueue import wire
from mqueue.clock import elapsed_s
from mqueue.worker.tasks.task import Task

_SURROGATE_OR_NUL = re.compile("[\0\ud800-\udfff]")  # what PostgreSQL cannot hold


class Progress(Struct, frozen=True, tag=True):
    """A handler says that it is so far: 0 to 1."""

    fraction: float
    note: str | None = None


class Job:
    """`ended`: it has its outcome, or was given up. `lost`: its lease is another's, so nothing is settled. `unwanted`:
    it was cancelled.
    """

    __slots__ = (
        "args",
        "batch",
        "began",
        "came",
        "cancel",
        "ended",
        "kwargs",
        "lease",
        "lost",
        "message",
        "over_at",
        "overdue",
        "progress",
        "renew_at",
        "result",
        "stopping",
        "task",
        "unwanted",
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
        self.lost = False
        self.stopping = False  # cancelled because the worker stops
        self.unwanted = False
        self.overdue = False  # it ran longer than its task may
        self.cancel: Callable[[], object] | None = None  # set while a handler runs on the loop, or in a process

    @property
    def members(self) -> "Sequence[Job]":
        """These are the jobs that have a message each: those of a batch, else this one."""
        return self.batch or (self,)


class Current:
    """This is the job that is running here. For a batch, `id`, `attempt`, `metadata` and so on are those of its first
    message.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def id(self) -> int:
        """This is the id of its message."""
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
        """It was enqueued at this time, by the broker's clock, in UTC."""
        return self._job.message.created_at

    @property
    def task(self) -> str:
        """This is the name of its task."""
        return self._job.task.name

    @property
    def attempt(self) -> int:
        """The first attempt is 1."""
        return self._job.message.attempt

    @property
    def max_retries(self) -> int:
        return self._job.message.max_retries

    @property
    def cancelled(self) -> bool:
        """Somebody cancelled it, its lease is lost, it has run for too long, or the worker has no more time for it.

        For a thread, to look at now and then.
        """
        return self._job.lost or self._job.stopping or self._job.unwanted or self._job.overdue

    @property
    def batch(self) -> "list[Current]":
        """These are the jobs of a batch, in the order of its items; there are none where this is no batch."""
        return [Current(job) for job in self._job.batch or ()]

    def progress(self, fraction: float, note: str | None = None) -> None:
        """Tell how far it is, 0 to 1, and at what (200 characters are kept). The message's status shows it within a
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
        """This is what the enqueuer added to the message."""
        metadata = self._job.message.metadata
        return metadata if isinstance(metadata, dict) else {}


running: ContextVar[Job | None] = ContextVar("mqueue_job", default=None)


def current() -> Current:
    """Return the running job, inside a task's handler. Raises RuntimeError elsewhere."""
    job = running.get()
    if job is None:
        raise RuntimeError("mqueue.current() is for a handler that a worker runs")
    return Current(job)
