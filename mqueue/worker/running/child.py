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
from typing import Any

from mqueue.worker.arguments import codec
from mqueue.worker.channel import ASK, Began, Channel, Ended, Go, Run, opened
from mqueue.worker.running.handler import call, call_async
from mqueue.worker.running.outcome import decide
from mqueue.worker.tasks.job import Job, Progress
from mqueue.worker.tasks.task import Task, find

ORPHANED = 70  # exit code
PROGRESS_S = 0.25
OUTSIDE: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}  # what a process has of its own


class Child:
    """It runs the jobs that the worker sends, and tells how each ended."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._busy = threading.Event()
        self._sending = threading.Lock()
        self._job: Job | None = None  # whose handler runs
        self._on_loop: asyncio.Task[object] | None = None  # the same, where it runs on a loop

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
        if self._channel.receive(Go) is None:
            os._exit(ORPHANED)
        self._job = job
        error = asyncio.run(self._call_async(job)) if task.is_async else call(job)
        return error, job.result if error is None else None

    async def _call_async(self, job: Job) -> BaseException | None:
        self._on_loop = asyncio.current_task()
        try:
            return await call_async(job)
        finally:
            self._on_loop = None

    def ask(self, signum: int, frame: object) -> None:
        """The worker asks the job to end: as by Ctrl-C, it may clean up."""
        if (task := self._on_loop) is None:
            raise KeyboardInterrupt
        task.cancel()
        task.get_loop().call_soon_threadsafe(lambda: None)  # it may sleep

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
    """Ignores SIGTERM and SIGINT, sent to all of a container: when this process ends is for the worker to say, which
    closes the channel, asks it or kills it.
    """


def leave_forks_alone() -> None:
    """Lets what a handler forks end by these, at any time. (What it starts otherwise does so anyway: a handler is not
    inherited.)
    """
    masks = threading.local()

    def before() -> None:
        masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, OUTSIDE)

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    def in_child() -> None:
        for sign, own in OUTSIDE.items():
            if signal.getsignal(sign) is stay:
                signal.signal(sign, own)
        in_parent()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def main(fd: int, with_logs: bool) -> None:
    """Serves the worker at the other end of `fd` until it is gone."""
    for sign in OUTSIDE:
        signal.signal(sign, stay)
    leave_forks_alone()
    faulthandler.enable()
    child = Child(opened(fd, with_logs))
    signal.signal(ASK, child.ask)
    child.serve()
