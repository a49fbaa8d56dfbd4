"""This runs a handler in a test, whether the test has an event loop or not. What it raises is
returned, as in a worker.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from mqueue import wire
from mqueue.worker.running import batch
from mqueue.worker.running.handler import call, call_async
from mqueue.worker.tasks.job import Job
from mqueue.worker.tasks.task import Task


def job_of(message: wire.Message, task: Task[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Job:
    """Returns the message's job; a batch's handler gets a batch of one."""
    job = Job(message, task, args, kwargs, message.lease)
    return job if task.batch is None else batch.job_of([job])


def verdict(job: Job, error: BaseException | None) -> BaseException | None:
    """Returns what became of it: of a batch of one, what its handler said of the one."""
    return job.verdicts[0] if error is None and job.batch is not None else error


def run(job: Job) -> BaseException | None:
    """Runs an `async def` on an event loop of its own. Where a loop runs here already, the handler runs in a thread
    beside it: in a worker, too, a `def` has no loop in its thread.
    """
    handle = partial(_run_async, job) if job.task.is_async else partial(call, job)
    if asyncio._get_running_loop() is None:
        return verdict(job, handle())
    with ThreadPoolExecutor(1, "mqueue-test") as beside:
        return verdict(job, beside.submit(copy_context().run, handle).result())


async def run_async(job: Job) -> BaseException | None:
    """Runs an `async def` on this loop, a `def` in a thread."""
    if job.task.is_async:
        return verdict(job, await asyncio.create_task(call_async(job)))
    return verdict(job, await asyncio.to_thread(call, job))


def _run_async(job: Job) -> BaseException | None:
    return asyncio.run(call_async(job))


def is_of_the_test(error: BaseException | None) -> bool:
    """Is it the end of the test (pytest.fail, Ctrl-C), and not the handler's failure?"""
    return error is not None and not isinstance(error, Exception | asyncio.CancelledError | SystemExit)
