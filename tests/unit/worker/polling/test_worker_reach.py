"""After a silence nothing waits on a connection that the network may have forgotten."""

import asyncio

import pytest

from mqueue import wire
from mqueue.clock import SystemClock
from mqueue.errors import Invalid, Unavailable
from mqueue.worker.polling.reach import SILENT_S, Reach


async def test_what_was_sent_in_a_silence_is_given_up_when_it_is_over() -> None:
    """The check that is answered took a connection of its own; a call beside it may have taken one before, on the same
    session.
    """
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


async def test_a_refused_fetch_says_that_no_work_can_be_claimed() -> None:
    """A settle that is not taken does not: the fetch without it, which follows, tells."""

    class Later(SystemClock):
        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    clock = Later()
    reach = Reach(clock)

    async def poll(request: wire.Poll) -> wire.Polled:
        if request.settle:
            raise Unavailable("no place for results")
        if "odd" in request.topics:
            raise Invalid("not that")
        return wire.Polled([], [])

    watched = reach.watched(poll)
    await watched(wire.Poll(topics=["t"], limit=1))
    clock.ahead = SILENT_S + 1
    with pytest.raises(Unavailable):
        await watched(wire.Poll(settle=[wire.PollSettle(id=1, topic="t", kind="ack")]))
    assert not reach._failing
    with pytest.raises(Invalid):
        await watched(wire.Poll(topics=["odd"], limit=1))
    assert reach._failing and "not that" in str(reach.problem())
