"""Runs a handler in a test, whether the test has an event loop or not. What it raises is returned, as in a worker."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from mqueue.worker.handler import call, call_async
from mqueue.worker.job import Job


def run(job: Job) -> BaseException | None:
    """An `async def` on an event loop of its own, beside one that runs here already."""
    if not job.task.is_async:
        return call(job)
    if asyncio._get_running_loop() is None:
        return asyncio.run(call_async(job))
    with ThreadPoolExecutor(1, "mqueue-test") as beside:
        return beside.submit(copy_context().run, asyncio.run, call_async(job)).result()


async def run_async(job: Job) -> BaseException | None:
    """An `async def` on this loop, a `def` in a thread."""
    if job.task.is_async:
        return await asyncio.create_task(call_async(job))
    return await asyncio.to_thread(call, job)


def is_of_the_test(error: BaseException | None) -> bool:
    """Not the handler's failure, but the end of the test: pytest.fail, Ctrl-C."""
    return error is not None and not isinstance(error, Exception | asyncio.CancelledError | SystemExit)
