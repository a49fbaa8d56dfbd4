"""This module defines three tasks.

Start a broker and a worker, then run this file to queue some jobs:

    mqueue broker
    mqueue worker examples.emails
    python -m examples.emails
"""

# ruff: noqa: T201

import asyncio
import random
import time

from mqueue import current, task


@task(topic="emails", priority=5)
def send(to: str, subject: str) -> None:
    """A `def` runs in a thread: it may block."""
    time.sleep(0.1)
    print(f"sent {subject!r} to {to}")


@task(topic="emails", priority=1)
async def send_code(to: str, code: int) -> None:
    """An `async def` runs on the event loop. Priority 1 comes before 5."""
    await asyncio.sleep(0.1)
    print(f"sent code {code:06d} to {to}")


@task(topic="emails", priority=9, max_retries=5)
def fetch_replies(mailbox: str) -> None:
    """It fails half the time: the job is tried again a little later, and after five retries it is a dead letter."""
    job = current()
    if random.random() < 0.5:
        raise ConnectionError(f"{mailbox}: no answer at attempt {job.attempt}")
    print(f"fetched the replies of {mailbox} at attempt {job.attempt}")


if __name__ == "__main__":
    for n in range(5):
        send.enqueue(f"reader{n}@example.org", subject="News")
    send_code.enqueue("ada@example.org", code=4711)
    fetch_replies.options(delay=2).enqueue("support")
    print("queued 7 jobs")
