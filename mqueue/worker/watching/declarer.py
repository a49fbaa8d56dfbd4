"""It tells the broker when periodic tasks run, when a worker starts or as soon as the broker is there.

A declaration that is not new changes nothing, so any number of workers may declare the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from mqueue import backoff, wire
from mqueue.errors import Forbidden, Invalid, MQueueError, TooLarge

PAUSE_S = 0.5
PAUSE_MAX_S = 30.0
REFUSED = (Invalid, Forbidden, TooLarge)  # the broker will not take it later either

log = structlog.get_logger("mqueue.worker")


async def declare(
    items: Mapping[str, wire.ScheduleItem], put: Callable[[str, wire.ScheduleItem], Awaitable[wire.Schedule]], jitter: Callable[[], float]
) -> None:
    """Returns when all are declared, or refused. While the broker does not answer it tries on."""
    left, failed = dict(items), 0
    while left:
        for name, item in list(left.items()):
            try:
                known = await put(name, item)
            except MQueueError as error:
                if isinstance(error, REFUSED):
                    log.error("periodic task refused: it is not scheduled", task=name, error=str(error))
                    del left[name]
                elif not failed:
                    log.warning("periodic task not declared yet, trying on", task=name, error=str(error))
            else:
                log.info("periodic task declared", task=name, next=str(known.next_at), paused=known.paused)
                del left[name]
        if left:
            failed += 1
            await asyncio.sleep(backoff.pause_s(failed, jitter(), PAUSE_S, PAUSE_MAX_S))
