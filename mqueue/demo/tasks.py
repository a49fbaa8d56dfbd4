"""What the demo's worker runs. Each start is noted in a file, so that the demo counts what was really done."""

import os
import time
from pathlib import Path

from mqueue import Retry, current, task

NOTES = "DEMO_NOTES"
_notes = Path(os.environ[NOTES]).open("a", buffering=1) if NOTES in os.environ else None  # noqa: SIM115


def _note(due: float) -> None:
    if _notes is not None:
        _notes.write(f"{current().attempt} {time.time() - due:.6f}\n")


@task(topic="demo")
async def job(due: float) -> None:
    """Does nothing, at once."""
    _note(due)


@task(topic="demo")
async def flaky(due: float) -> None:
    """Fails at its first attempt."""
    _note(due)
    if current().attempt == 1:
        raise Retry("the first attempt always fails", after=0.2)


@task(topic="demo", max_retries=1)
async def hopeless(due: float) -> None:
    """Always fails: its retries end, and it becomes a dead letter."""
    _note(due)
    raise Retry("always fails", after=0.2)
