"""After a silence nothing waits on a connection that the network may have forgotten."""

import asyncio

from mqueue.clock import SystemClock
from mqueue.worker.reach import Reach


async def test_what_was_sent_in_a_silence_is_given_up_when_it_is_over() -> None:
    """The check that is answered took a connection of its own; a call beside it may have taken one before, on the same session."""
    said: list[str] = []
    over = asyncio.Event()

    async def check() -> None:
        said.append("check")
        if said.count("check") == 1:
            raise ConnectionError

    async def doubt() -> None:
        said.append("doubt")

    def resume() -> None:
        said.append("resume")
        over.set()

    keeping = asyncio.create_task(Reach(SystemClock()).keep(check, lambda: said.append("renew"), doubt, resume))
    async with asyncio.timeout(5):
        await over.wait()
    keeping.cancel()
    assert said == ["check", "renew", "check", "renew", "doubt", "resume"]
