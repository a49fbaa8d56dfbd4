"""This is one worker process of a fleet: it gets its options from the parent, tells it how it is, and stops when the
parent is gone.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from mqueue.errors import MQueueError
from mqueue.worker.channel import Channel, opened
from mqueue.worker.program.options import Options
from mqueue.worker.program.work import leave_if_blocked, work
from mqueue.worker.runtime import Worker

REPORT_S = 1.0  # between two reports
HURRY = signal.SIGUSR2  # from the parent: stop at once


class Refused(Struct, frozen=True, tag=True):
    """It tells the parent that this process cannot run, and why."""

    detail: str
    exit_code: int


class Reporter:
    """It tells the parent how the worker is, from a thread of its own: a blocked loop must not stop it."""

    def __init__(self, channel: Channel, worker: Worker) -> None:
        self._channel = channel
        self._worker = worker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqueue-report", daemon=True)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join(REPORT_S)

    def _run(self) -> None:
        while not self._ended.wait(REPORT_S if self._worker.started else REPORT_S / 20):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        if self._worker.started:
            with suppress(OSError):  # the parent is gone
                self._channel.send(self._worker.status())


def stop_with(channel: Channel) -> None:
    """Blocks until the parent is gone; then it is as if this process had been told to stop."""
    channel.wait_closed()
    os.kill(os.getpid(), signal.SIGTERM)


def obey(worker: Worker) -> None:
    """A member that is told to stop, however often, has its grace: all processes may get the signal that the parent
    passes on. The parent alone takes it.
    """
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(sign, worker.retire)
    loop.add_signal_handler(HURRY, worker.hurry)
    leave_if_blocked(worker, [HURRY], 1)


def main(fd: int, with_logs: bool) -> None:
    """Runs a worker for the parent at the other end of `fd`."""
    channel = opened(fd, with_logs)
    options = channel.receive(Options)
    if options is None:
        return
    threading.Thread(target=stop_with, args=(channel,), name="mqueue-orphan", daemon=True).start()
    try:
        code = work(options, lambda worker: Reporter(channel, worker).reporting(), obey)
    except MQueueError as error:
        code = getattr(error, "exit_code", 1)
        with suppress(OSError):
            channel.send(Refused(error.detail, code))
    sys.exit(code)
