"""This runs in a process of the pool: one job after the other, each for one message. `mqueue.worker.running.processes`
is the other side.

The process gets names of the worker's own tasks and messages as the broker sent them; nothing is unpickled. It ends
when the worker is gone, in the middle of a job too: the lease of that job will end, and another worker has it then.
"""

import asyncio
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from contextvars import copy_context

from mqueue.worker.arguments import codec
from mqueue.worker.channel import Began, Channel, Ended, Run, opened
from mqueue.worker.running.handler import call, call_async
from mqueue.worker.running.outcome import decide
from mqueue.worker.tasks.job import Job, Progress
from mqueue.worker.tasks.task import Task, find

ORPHANED = 70  # exit code
PROGRESS_S = 0.25


class Child:
    """It runs the jobs that the worker sends, and tells how each ended."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._busy = threading.Event()
        self._sending = threading.Lock()
        self._job: Job | None = None  # whose handler runs

    def serve(self) -> None:
        """Runs jobs until the worker closes the channel."""
        threading.Thread(target=self._watch, name="mqueue-orphan", daemon=True).start()
        threading.Thread(target=self._report, name="mqueue-progress", daemon=True).start()
        while (run := self._channel.receive(Run)) is not None:
            self._busy.set()
            ended = self._run(run)
            with self._sending:
                self._job = None
                self._channel.send(ended)
            self._busy.clear()

    def _run(self, run: Run) -> Ended:
        error: BaseException | None
        retry = result = None
        try:
            task = find(run.module, run.qualname)
            retry = task.retry
            connect(task, run)
            error, result = copy_context().run(self._call, task, run)  # what it leaves in its context is thrown away with that
        except BaseException as raised:
            error = raised
        with suppress(OSError, ValueError, AttributeError):  # stdout is full, closed or missing: that is not the job's fault
            sys.stdout.flush()
        outcome = decide(error, retry=retry, attempt=run.message.attempt, chance=random.random())
        return Ended(outcome.kind, outcome.error, outcome.retry_after, result)

    def _call(self, task: Task[..., object], run: Run) -> tuple[BaseException | None, bytes | None]:
        envelope = codec.decode(run.message.payload)
        args, kwargs = task.shape.fit(envelope.args, envelope.kwargs)
        job = Job(run.message, task, args, kwargs, run.message.lease)
        self._channel.send(Began())
        self._job = job
        error = asyncio.run(call_async(job)) if task.is_async else call(job)
        return error, job.result if error is None else None

    def _report(self) -> None:
        """Tells what the handler says of how far it is, a few times a second at most."""
        told: Progress | None = None
        while True:
            self._busy.wait()
            time.sleep(PROGRESS_S)
            with self._sending:
                job = self._job
                if job is not None and job.progress is not None and job.progress is not told:
                    told = job.progress
                    with suppress(OSError):  # the worker is gone
                        self._channel.send(told)

    def _watch(self) -> None:
        self._channel.wait_closed()
        if self._busy.is_set():
            os._exit(ORPHANED)


def connect(task: Task[..., object], run: Run) -> None:
    """Has what the job enqueues go where the worker was told to."""
    endpoint = (run.url, run.token)
    if endpoint not in ((None, None), task.app.producer.endpoint):
        task.app.producer.connect(*endpoint)


def stay(signum: int, frame: object) -> None:
    """Ignores SIGTERM, sent to all of a container: when this process ends is for the worker to say, which closes the
    channel or kills it.
    """


def leave_forks_alone() -> None:
    """Lets what a handler forks end by SIGTERM, at any time. (What it starts otherwise does so anyway: a handler is not
    inherited.)
    """
    masks = threading.local()

    def before() -> None:
        masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    def in_child() -> None:
        if signal.getsignal(signal.SIGTERM) is stay:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        in_parent()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def main(fd: int, with_logs: bool) -> None:
    """Serves the worker at the other end of `fd` until it is gone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the worker cancels a job by it; a script's background would ignore it
    signal.signal(signal.SIGTERM, stay)
    leave_forks_alone()
    faulthandler.enable()
    Child(opened(fd, with_logs)).serve()
