"""A cancellation that gets lost on its way is said again."""

import asyncio

from mqueue.broker import tasks


async def test_a_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    async def failed() -> None:
        raise ValueError

    both = [asyncio.create_task(stubborn()), asyncio.create_task(failed())]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.end(both)
    assert swallowed == 1
    assert all(task.done() for task in both)
