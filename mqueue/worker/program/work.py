"""One worker runs in this process: it imports modules, finds their apps, and runs their jobs until a signal comes."""

import asyncio
import atexit
import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import NoReturn

from mqueue.repeats import Repeats
from mqueue.worker.program.options import Options
from mqueue.worker.runtime import Worker
from mqueue.worker.sources import WorkerError
from mqueue.worker.tasks.app import DuplicateTask, MQueue, default
from mqueue.worker.traces import summary

STOPS = (signal.SIGTERM, signal.SIGINT)
EXIT_S = 3.0  # for exit handlers
LEAVE_LOOK_S = 0.1

Around = Callable[[Worker], AbstractContextManager[object]]


def load(modules: Sequence[str]) -> None:
    """Imports modules, from the working directory too, so that their tasks register. Raises WorkerError, naming one."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise WorkerError(f"cannot import module {name}: {summary(error)}") from error


def gather(modules: Sequence[str]) -> list[MQueue]:
    """Finds the apps that have tasks: those found by a name in the modules, and the default one."""
    named = [value for name in modules for value in vars(sys.modules[name]).values() if isinstance(value, MQueue)]
    return [app for app in dict.fromkeys([default, *named]) if len(app)]


def union(apps: Sequence[MQueue]) -> MQueue:
    """Puts all their tasks in one app. Raises WorkerError where two want one name, or are queued at two brokers."""
    if len(apps) == 1:
        return apps[0]
    brokers = {app.producer.endpoint for app in apps} - {(None, None)}
    if len(brokers) > 1:
        raise WorkerError(
            f"the modules' apps have several brokers ({', '.join(sorted(str(url) for url, _ in brokers))}): run a worker for each"
        )
    whole = MQueue(*next(iter(brokers), (None, None)))
    try:
        for app in apps:
            whole.include(app)
    except DuplicateTask as error:
        raise WorkerError(str(error)) from error
    return whole


def obey(worker: Worker) -> None:
    """A second signal skips the grace, unless it comes along with the first. SIGHUP (the terminal is gone) stops it as
    the first does, and is no second one.
    """
    on_signals(worker.stop, worker.retire)
    leave_if_blocked(worker, STOPS, 2)


def leave_if_blocked(worker: Worker, signs: Sequence[signal.Signals], times: int) -> None:
    """Ends a process whose loop is blocked, and cannot hear signals, at the `times`-th of these: the interpreter calls
    this wherever the loop is.
    """
    repeats = Repeats()

    def hear(*_: object) -> None:
        if repeats.heard() == times:
            threading.Thread(target=leave, name="mqueue-leave", daemon=True).start()

    def leave() -> None:
        """Waits for a while: only then it shows whether the loop is blocked."""
        while not worker.blocked:
            time.sleep(LEAVE_LOOK_S)
        os.write(2, b"mqueue worker: stopped at once, though its event loop is blocked; its jobs come again when their leases end\n")
        os._exit(1)

    for sign in signs:
        signal.signal(sign, hear)
        signal.siginterrupt(sign, False)


def work(options: Options, around: Around, listen: Callable[[Worker], None] = obey) -> int:
    """Runs the jobs in this process. `around(worker)` surrounds its run, on its loop; `listen(worker)` has signals stop
    it.
    """
    load(options.modules)
    apps = gather(options.modules)
    if options.url is not None or options.token is not None:  # jobs that enqueue do so at the broker that they came from
        for app in apps:
            app.producer.connect(options.url, options.token)
    worker = partial(
        Worker,
        union(apps),
        namespace=options.namespace,
        topics=options.topics,
        exclude=options.exclude,
        concurrency=options.concurrency,
        grace=options.grace,
        max_jobs=options.max_jobs,
        max_memory_mb=options.max_memory_mb,
        name=options.name,
    )
    gc.collect()
    gc.freeze()  # the modules stay: each full collection would look through them, and stop all jobs for that time
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_serve(worker, around, listen))


async def _serve(make: Callable[[], Worker], around: Around, listen: Callable[[Worker], None]) -> int:
    worker = make()
    listen(worker)
    with around(worker):
        code = await worker.run()
    if worker.cancelled or worker.cut_off:  # threads and handlers that go on must not hold the process
        _exit_without_them(code)
    return code


def _exit_without_them(code: int) -> NoReturn:
    """Ends the process at once. What waits for its end (buffers of traces, of reports) has its chance all the same."""
    leaving = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    leaving.start()
    leaving.join(EXIT_S)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, full, or none
            stream.flush()
    os._exit(code)


def on_signals(stop: Callable[[], None], retire: Callable[[], None]) -> None:
    """From now on SIGTERM and SIGINT call `stop`, those within a second once; SIGHUP calls `retire`."""
    loop, repeats = asyncio.get_running_loop(), Repeats()

    def told() -> None:
        if repeats.heard() is not None:
            stop()

    for sign in STOPS:
        loop.add_signal_handler(sign, told)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup has it ignored
        loop.add_signal_handler(signal.SIGHUP, retire)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
