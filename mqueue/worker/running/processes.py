"""A pool of processes runs tasks with `executor="process"`: one job in each at a time, watched by the thread that waits
for it.

A limit that is passed ends that process alone; the others go on, and the next job gets a new one. Processes are started
(not forked) when a job needs one, and kept for the next.
"""

import asyncio
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mqueue.worker.channel import ASK, Began, Channel, Ended, Go, Run, command
from mqueue.worker.memory import MB, held_by
from mqueue.worker.running.outcome import Outcome, done
from mqueue.worker.tasks.job import Interrupt, Job, Progress
from mqueue.worker.tasks.names import module_name
from mqueue.worker.tasks.signals import MemoryLimit, ProcessEnded, TimeLimit

START_S = 60.0  # for the interpreter and the task's module
MEMORY_LOOK_S = 0.05  # between two looks at its memory
LIFE_LOOK_S = 1.0  # between two looks whether it lives: something it started may hold the channel open
CANCEL_S = 0.5  # for one that was asked to end
IDLE_S = 30.0
STOP_S = 3.0  # for an idle one to end
AT_ONCE = {Interrupt.LOST, Interrupt.STOPPING}  # nobody waits for it to clean up


class Processes:
    """It keeps idle processes: the one used last is used next, and one that was idle for `idle_s` seconds ends. It is
    called from many threads.
    """

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: list[Process] = []
        self._busy: set[Process] = set()
        self._stopped = False
        self._timer: threading.Timer | None = None

    def run(self, job: Job) -> Outcome:
        """Blocks until the job has ended. Raises ProcessEnded (TimeLimit, MemoryLimit), CancelledError where
        `job.cancel` was called.
        """
        process = self._take(job.task.memory_limit_mb)
        try:
            return process.run(job)
        finally:
            self._give_back(process)

    def stop(self) -> None:
        """Ends all of them, in the middle of a job too."""
        with self._lock:
            self._stopped = True
            idle, busy = self._idle, list(self._busy)
            self._idle = []
            if self._timer is not None:
                self._timer.cancel()
        for process in busy:
            process.kill()
        end(idle)

    def _take(self, memory_limit_mb: float | None) -> "Process":
        """Takes one that holds less than half of what the job may: what it kept of earlier jobs is not its fault."""
        with self._lock:
            process = self._idle.pop() if self._idle else None
        if process is not None and (not process.usable() or (memory_limit_mb is not None and process.memory() > memory_limit_mb * MB / 2)):
            process.kill()
            process = None
        process = process or Process()
        with self._lock:
            self._busy.add(process)
            if self._stopped:
                process.kill()
        return process

    def _give_back(self, process: "Process") -> None:
        with self._lock:
            self._busy.discard(process)
            kept = not self._stopped and process.usable()
            if kept:
                process.idle_since = time.monotonic()
                self._idle.append(process)
                self._look_after(self._idle_s)
        if not kept:
            end([process])

    def _look_after(self, seconds: float) -> None:
        """Plans the next look, with the lock held: one at a time, when the one that is idle for longest may end."""
        if self._timer is None:
            timer = threading.Timer(seconds, self._end_idle)
            timer.daemon = True
            with suppress(RuntimeError):  # no thread can be made: the next process that becomes idle tries again
                timer.start()
                self._timer = timer

    def _end_idle(self) -> None:
        with self._lock:
            now = time.monotonic()
            surplus = [each for each in self._idle if each.idle_since <= now - self._idle_s]
            self._idle = [each for each in self._idle if each not in surplus]
            self._timer = None
            if self._idle:
                self._look_after(max(0.0, min(each.idle_since for each in self._idle) + self._idle_s - now))
        end(surplus)


def end(processes: "Sequence[Process]") -> None:
    """Ends all of them at once; idle ones end by themselves."""
    for process in processes:
        process.close()
    for process in processes:
        process.wait()


class Process:
    """It is one process of the pool, and runs one job at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: a Ctrl-C is for the worker, and what the handler starts can be ended along with it.
            self._process = subprocess.Popen(
                command("mqueue.worker.running.child", theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel = Channel(ours)
        self._poll = select.poll()
        self._poll.register(ours.fileno(), select.POLLIN)
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._begun = False  # its handler may run
        self._cancelled = False
        self.idle_since = 0.0  # monotonic seconds

    def run(self, job: Job) -> Outcome:
        """Blocks until the job has ended; raises what `Processes.run` does."""
        with self._lock:
            self._job, self._begun = job, False
        job.cancel = lambda: self._cancel(job)
        try:
            if job.ended or job.interrupts:  # that happened before it could be cancelled
                raise asyncio.CancelledError
            return self._run(job)
        finally:
            job.cancel = None
            with self._lock:
                self._job = None

    def _run(self, job: Job) -> Outcome:
        task, (url, token) = job.task, job.task.app.producer.endpoint
        with suppress(ConnectionError):  # the process has just died: its answer will say so
            self._channel.send(Run(module_name(task.function), task.function.__qualname__, job.message, url, token))
        slow = ProcessEnded(f"the process of the job had not imported its module after {START_S:g} s, and was killed")
        answer = self._wait(slow, START_S)
        if isinstance(answer, Began):
            self._begin(job)
            late = TimeLimit(f"the job ran longer than its time_limit={task.time_limit} s: its process was killed")
            answer = self._wait(late, task.time_limit, task.memory_limit_mb)
        if not isinstance(answer, Ended):
            raise ProcessEnded("the process of the job began twice")
        if answer.kind == "ack":
            return done(answer.result, task.result_ttl)
        return Outcome(answer.kind, answer.error, answer.retry_after, meant=True)  # a stop kills a process, so this answer is none of its doing

    def _begin(self, job: Job) -> None:
        """Lets the handler begin. What was interrupted before does not: its process is ended, as it waits for this.
        Raises CancelledError then.
        """
        with self._lock:
            if job.ended or job.interrupts:
                self._cancelled = True
            elif not self._cancelled:
                self._begun = True
        if not self._begun:
            self._put_down()
            raise asyncio.CancelledError
        with suppress(ConnectionError):  # the process has just died: its answer will say so
            self._channel.send(Go())

    def _cancel(self, job: Job) -> None:
        """Not what runs in it by now. One that is not wanted is asked first, as by Ctrl-C, and may clean up; there is
        nothing to clean up where its handler has not begun.
        """
        with self._lock:
            if self._job is not job:
                return
            asked, self._cancelled = self._cancelled, True
            if asked or not self._begun or job.interrupts & AT_ONCE:
                return self.kill()
            with suppress(ProcessLookupError):
                self._process.send_signal(ASK)
        timer = threading.Timer(CANCEL_S, self._cancel, (job,))
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no thread can be made
            self.kill()

    def kill(self) -> None:
        """It, and what it has started and left in its session's group."""
        if not self.died():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """An idle one ends by itself then."""
        self._channel.close()

    def wait(self) -> None:
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def usable(self) -> bool:
        return not self._cancelled and not self.died()

    def died(self) -> bool:
        return self._process.poll() is not None

    def memory(self) -> int:
        """Bytes of memory that it holds."""
        try:
            return held_by(Path(f"/proc/{self._process.pid}/statm"))
        except (OSError, IndexError):
            return 0  # it has died meanwhile

    def _wait(self, late: ProcessEnded, time_limit: float | None, memory_limit_mb: float | None = None) -> Began | Ended:
        """Its answer; the job hears of progress before. Past `time_limit` it is put down and `late` is raised."""
        deadline = float("inf") if time_limit is None else time.monotonic() + time_limit
        look_s = LIFE_LOOK_S if memory_limit_mb is None else MEMORY_LOOK_S
        while True:
            left = min(look_s, max(0.0, deadline - time.monotonic()))
            if self._poll.poll(left * 1000) or self.died():
                answer = self._answer()
                if not isinstance(answer, Progress):
                    return answer
                if (job := self._job) is not None:
                    job.progress = answer
            if memory_limit_mb is not None and self.memory() > memory_limit_mb * MB:
                self._put_down()
                raise MemoryLimit(f"the job held more than its memory_limit_mb={memory_limit_mb}: its process was killed")
            if time.monotonic() >= deadline:
                self._put_down()
                raise late

    def _answer(self) -> Began | Ended | Progress:
        if self._poll.poll(0):
            answer: Began | Ended | Progress | None = self._channel.receive(Began | Ended | Progress)  # type: ignore[arg-type]
            if answer is not None:
                return answer
        code = self._put_down()
        if self._cancelled:
            raise asyncio.CancelledError
        raise ProcessEnded(f"the process of the job {how(code)}")

    def _put_down(self) -> int:
        self.kill()
        return self._process.wait()


def how(code: int) -> str:
    """Says how it ended, by its exit code as `subprocess` has it."""
    if code >= 0:
        return f"exited with code {code} before the job had ended"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", perhaps because memory ran out" if name == "SIGKILL" else "")
