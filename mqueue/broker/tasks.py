"""Tasks are ended for certain here."""

import asyncio
from collections.abc import Collection
from typing import Any

import structlog

CANCEL_AGAIN_S = 0.5

logger = structlog.get_logger(__name__)


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels them until they have ended; what they raise is dropped.

    A cancellation may get lost in a library, where it meets the very answer that was waited for: so it is said again.
    """
    ending = set(tasks)
    while ending:
        for task in ending:
            task.cancel()
        _, ending = await asyncio.wait(ending, timeout=CANCEL_AGAIN_S)
        if ending:
            logger.info("cancelled again", parts=sorted(task.get_name() for task in ending))
    for task in tasks:
        if not task.cancelled():
            task.exception()  # so that nobody complains that it was never looked at
