"""With `mqueue worker --processes N` a parent that runs no jobs keeps N workers running.

One that falls is started again, after a pause that grows while it keeps falling; one that has ended by itself
(recycled) at once. What keeps the first ones from starting (a module that cannot be imported, a token that is refused)
ends the parent with that error. Signals are passed on. A worker whose parent is gone, even by kill -9, sees the end of
its channel and stops as on SIGTERM.

With `reload` a change of a file starts all of them anew, and an error waits for the next change.
"""

import asyncio
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import msgspec
import structlog

from mqueue import backoff
from mqueue.worker.channel import LENGTH, command
from mqueue.worker.program.member import HURRY, Refused
from mqueue.worker.program.options import Options
from mqueue.worker.running.processes import how
from mqueue.worker.sources import WorkerError
from mqueue.worker.status import Status
from mqueue.worker.stopping import CANCEL_S, HURRY_S
from mqueue.worker.traces import summary

PAUSE_S, PAUSE_MAX_S = 0.5, 30.0
STEADY_S = 60.0  # after a life of this length the pause is the shortest again
LAST_WORDS_S = 1.0  # for what it told just before its end
SILENT_S = 5.0  # without a report it counts as stuck
KILL_S = 10.0  # beyond what a worker takes to stop
RELOAD_GRACE_S = 2.0
ENDED_BY = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -HURRY)  # a signal ended it before it had begun, or when all was done

log = structlog.get_logger("mqueue.worker")
_report = msgspec.msgpack.Decoder(Status | Refused)


class FleetError(WorkerError):
    """Its processes cannot start."""

    def __init__(self, detail: str, exit_code: int) -> None:
        super().__init__(detail)
        self.exit_code = exit_code


class Slot:
    """It is the place of one worker, and knows the process that has it now."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.process: asyncio.subprocess.Process | None = None
        self.refused: Refused | None = None
        self.told: Status | None = None  # None: it has not begun
        self.told_at = 0.0
        self.code = 0
        self.renewed = False  # it was stopped to be started anew

    def begin(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.refused, self.told, self.renewed = process, None, None, False

    def note(self, report: Status | Refused, now: float) -> None:
        if isinstance(report, Refused):
            self.refused = report
        else:
            self.told, self.told_at = report, now

    def status(self, now: float) -> Status:
        told = self.told
        if told is None or self.process is None:
            return Status("a worker process is being started", {}, 0, self._slots)
        if now - self.told_at > SILENT_S:
            return Status(f"a worker process has told nothing for {now - self.told_at:.0f} s", told.counts, told.running, self._slots)
        return told

    def signal(self, sign: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(sign)


class Fleet:
    """It keeps its processes running: `await fleet.run()`, ended by `fleet.stop()`. `changes`: yields when the code has
    changed. `ended`: jobs by outcome of past processes.
    """

    def __init__(
        self,
        options: Options,
        processes: int,
        *,
        changes: AsyncIterator[object] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if changes is not None:
            options = msgspec.structs.replace(options, grace=min(options.grace, RELOAD_GRACE_S))
        self._options = options
        self._slots = [Slot(options.concurrency) for _ in range(processes)]
        self._changes = changes
        self._jitter = jitter
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._began = False  # at least one process has
        self._worked = False  # at least one process could claim work
        self._error: WorkerError | None = None
        self.ended: Counter[str] = Counter()

    def statuses(self) -> list[Status]:
        """Tells how each process is. May be called from any thread."""
        now = time.monotonic()
        statuses = [slot.status(now) for slot in self._slots]
        if self._stopping.is_set():
            return [msgspec.structs.replace(each, problem="the worker stops") for each in statuses]
        return statuses

    def stop(self) -> None:
        """Stops every process: the first call tells them to stop, the second to hurry."""
        hurry = self._stopping.is_set()
        self.retire()
        if hurry:
            for slot in self._slots:
                slot.signal(HURRY)

    def retire(self) -> None:
        """Stops every process; called again it means no more."""
        self._stopping.set()
        for slot in self._slots:
            slot.signal(signal.SIGTERM)

    async def run(self) -> int:
        """Runs until stopped. Returns 0, or the worst code of its processes. Raises WorkerError for what kept them from
        starting.
        """
        loop = asyncio.get_running_loop()
        keepers = [loop.create_task(self._keep(slot)) for slot in self._slots]
        watch = loop.create_task(self._renew())
        await asyncio.wait([loop.create_task(self._stopping.wait()), *keepers], return_when=asyncio.FIRST_COMPLETED)
        if not self._stopping.is_set():
            self.stop()
        watch.cancel()
        _, late = await asyncio.wait(keepers, timeout=self._options.grace + CANCEL_S + HURRY_S + KILL_S)
        if late:
            log.error("worker processes do not stop, killed", processes=len(late))
            for slot in self._slots:
                slot.signal(signal.SIGKILL)
        await asyncio.gather(*keepers)
        if self._error is not None:
            raise self._error
        return max(slot.code for slot in self._slots)

    async def _keep(self, slot: Slot) -> None:
        """Keeps processes in this place, one after the other."""
        falls = 0
        while not self._stopping.is_set():
            self._changed.clear()
            began = time.monotonic()
            try:
                code = await self._life(slot)
            except OSError as no:  # this machine has no process, or no socket, to spare
                code, slot.told, slot.refused = 1, None, Refused(f"a worker process cannot be started: {no}", 1)
            if self._stopping.is_set():
                slot.code = 0 if code in ENDED_BY else abs(code)
                return
            if slot.renewed:
                continue
            if code == 0 and slot.told is not None:
                log.info("worker process ended, another takes its place")
                falls = 0
                continue
            error = (
                slot.refused.detail if slot.refused is not None else f"a worker process {how(code) if code < 0 else f'exited with code {code}'}"
            )
            if self._changes is None and not (self._worked if slot.refused is not None else self._began):
                return self._give_up(error, code)
            falls = 1 if time.monotonic() - began >= STEADY_S else falls + 1
            await self._pause(error, falls)

    def _give_up(self, error: str, code: int) -> None:
        self._error = self._error or FleetError(error, code if code > 0 else 1)
        self.stop()

    async def _pause(self, error: str, falls: int) -> None:
        if self._changes is not None:
            log.error("worker process fell, waits for a change", error=error)
            pause = None
        else:
            pause = backoff.pause_s(falls, self._jitter(), PAUSE_S, PAUSE_MAX_S)
            log.error("worker process fell, is started again", error=error, pause=round(pause, 1))
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._changed)]
        await asyncio.wait(waits, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _life(self, slot: Slot) -> int:
        """Waits from start to end of one process. Returns its exit code, below 0 the signal that ended it."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: a Ctrl-C is for the parent, who passes it on.
            try:
                process = await asyncio.create_subprocess_exec(
                    *command("mqueue.worker.program.member", theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        slot.begin(process)
        if self._stopping.is_set():
            slot.signal(signal.SIGTERM)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            body = msgspec.msgpack.encode(self._options_of(slot))
            writer.write(len(body).to_bytes(LENGTH) + body)
            listening = asyncio.create_task(self._listen(reader, slot))
            code = await process.wait()
            await asyncio.wait([listening], timeout=LAST_WORDS_S)  # what it has started may hold the channel open
            listening.cancel()
            return code
        finally:
            self.ended.update(slot.told.counts if slot.told is not None else {})
            slot.process = None
            writer.close()

    def _options_of(self, slot: Slot) -> Options:
        """Gives each process a name of its own."""
        name = self._options.name
        if name is None or len(self._slots) == 1:
            return self._options
        return msgspec.structs.replace(self._options, name=f"{name}-{self._slots.index(slot) + 1}")

    async def _listen(self, reader: asyncio.StreamReader, slot: Slot) -> None:
        """Notes what it tells, until it ends."""
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size = int.from_bytes(await reader.readexactly(LENGTH))
                report = _report.decode(await reader.readexactly(size))
                slot.note(report, time.monotonic())
                self._began = True
                self._worked = self._worked or (isinstance(report, Status) and report.problem is None)

    async def _renew(self) -> None:
        if self._changes is None:
            return
        try:
            async for _ in self._changes:
                log.info("code changed, worker processes are started anew")
                self._changed.set()
                for slot in self._slots:
                    slot.renewed = True
                    slot.signal(signal.SIGTERM)
        except Exception as error:  # the system may have no more watches to give, say
            log.error("changes of the code are not seen any more", error=summary(error))
