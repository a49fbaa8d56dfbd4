"""Runs one handler right here, whether on the loop, in a thread or in a process of its own. What it raises is returned;
what it returns is dropped, or is the job's result.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from typing import Any

from mqueue.worker.running.batch import verdicts
from mqueue.worker.tasks.job import Current, Job, running
from mqueue.worker.tasks.middleware import around
from mqueue.worker.tasks.signals import NeverRan


def call(job: Job) -> BaseException | None:
    """Runs a plain `def`, and returns what it raised."""
    token = running.set(job)
    try:
        with around(job.task.app.run_hooks, Current(job)):
            keep(job, job.task.function(*job.args, **job.kwargs))
    except BaseException as raised:  # SystemExit too: a handler must not end the worker
        return raised
    finally:
        running.reset(token)
    return None


async def call_async(job: Job) -> BaseException | None:
    """Runs an `async def`, in an asyncio task of its own: what it leaves in the context goes with that."""
    running.set(job)
    try:
        with around(job.task.app.run_hooks, Current(job)):
            keep(job, await job.task.function(*job.args, **job.kwargs))
    except BaseException as raised:
        return raised
    return None


def keep(job: Job, returned: Any) -> None:
    """Keeps what the handler returned. Raises NeverRan, BadVerdicts, BadResult."""
    refuse_unrun(job, returned)
    if job.batch is not None:
        job.verdicts = verdicts(returned, len(job.batch))
    elif job.task.keeps_result:
        job.result = job.task.shape.pack_result(returned)


def refuse_unrun(job: Job, result: Any) -> None:
    """A plain wrapper around an `async def`, say, gives back a coroutine of which nothing has run. Raises NeverRan."""
    if result is None:
        return
    if not isinstance(result, Awaitable | Generator | AsyncGenerator) or asyncio.isfuture(result):  # a future runs by itself
        return
    if isinstance(result, Coroutine | Generator):
        result.close()  # no warning that it was never awaited
    raise NeverRan(
        f"task {job.task.name} gave back a {type(result).__name__}, which nothing runs: write the task, and each wrapper around it, "
        "as `async def` with `await`, or as a `def` without `yield`"
    )
