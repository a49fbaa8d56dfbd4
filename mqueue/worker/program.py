"""`mqueue worker`: imports the modules, finds their apps, runs a worker until a signal comes."""

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial

from mqueue.worker import outcome
from mqueue.worker.app import DuplicateTask, MQueue, default
from mqueue.worker.runtime import Worker, WorkerError


def load(modules: Sequence[str]) -> None:
    """Import the modules, from the working directory too, so that their tasks register. Raises WorkerError, naming it."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise WorkerError(f"cannot import module {name}: {outcome.summary(error)}") from error


def gather(modules: Sequence[str]) -> list[MQueue]:
    """The apps that have tasks: those found by a name in the modules, and the default one."""
    named = [value for name in modules for value in vars(sys.modules[name]).values() if isinstance(value, MQueue)]
    return [app for app in dict.fromkeys([default, *named]) if len(app)]


def union(apps: Sequence[MQueue]) -> MQueue:
    """All their tasks in one app. Raises WorkerError where two want one name, or are queued at two brokers."""
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


def run(
    modules: Sequence[str],
    *,
    namespace: str | None,
    topics: Sequence[str],
    concurrency: int,
    url: str | None,
    token: str | None,
    grace: float = 30.0,
    name: str | None = None,
) -> int:
    """`mqueue worker`: until SIGTERM or SIGINT. The exit code. Raises MQueueError (WorkerError, NoEndpoint, …)."""
    load(modules)
    apps = gather(modules)
    if url is not None or token is not None:  # jobs that enqueue do it where they came from
        for app in apps:
            app.producer.connect(url, token)
    worker = partial(Worker, union(apps), namespace=namespace, topics=topics, concurrency=concurrency, grace=grace, name=name)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_serve(worker))


async def _serve(make: Callable[[], Worker]) -> int:
    worker = make()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, worker.stop)
    code = await worker.run()
    if worker.cut_off:  # their threads, or what they do in spite of being cancelled, must not hold the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
