"""Workers wait here to hear which running messages are to be cancelled; one look at each shard, four times a second,
serves all of them.

Requests are rows of the shard's `cancel_request`, numbered in the order in which they can be seen. A call goes on from
the numbers that its last answer had; those of another epoch count for nothing, since PostgreSQL may have been set back:
what is remembered comes again then.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from mqueue.broker.faults import Fault
from mqueue.broker.shard import Shard
from mqueue.clock import Clock
from mqueue.errors import Invalid, Unavailable
from mqueue.message import BATCH_MAX

LOOK_S = 0.25
WAITERS_MAX = 2_000
READS_MAX = 3  # at a time: all who wait read at once what is new, and others need connections, too


class Place(NamedTuple):
    """How far a shard's requests are known."""

    epoch: int
    number: int


class Cancellations:
    def __init__(self, shards: Sequence[Shard], clock: Clock) -> None:
        self._shards = shards
        self._clock = clock
        self._last: dict[int, Place] = {}  # request of each shard, when it was last looked at
        self._asked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._reads = asyncio.Semaphore(READS_MAX)
        self._waiting = 0

    async def wait(self, namespaces: Sequence[str], since: str | None, seconds: float) -> tuple[str, list[int]]:
        """Returns where to go on, and the ids asked for beyond `since`; waits for one. Raises Invalid; Unavailable when
        too many wait.
        """
        places = _parse(since, len(self._shards))
        if self._waiting >= WAITERS_MAX:
            raise Unavailable("too many wait for cancellations", retry_after=LOOK_S)
        self._waiting += 1
        try:
            return await self._wait(places, namespaces, seconds)
        finally:
            self._waiting -= 1

    async def _wait(self, places: list[Place], namespaces: Sequence[str], seconds: float) -> tuple[str, list[int]]:
        deadline = self._clock.monotonic() + seconds
        while True:
            ids: list[int] = []
            for at, shard in enumerate(self._shards):
                with suppress(Fault):  # a shard that is away takes no requests either
                    places[at] = await self._read(shard, places[at], namespaces, ids, asks=seconds <= 0)
            left = deadline - self._clock.monotonic()
            if ids or left <= 0:
                return ",".join(f"{place.epoch}-{place.number}" for place in places), ids
            await asyncio.wait({self._next_look()}, timeout=left)

    def look(self) -> None:
        """Looks now: there is a new request."""
        self._asked.set()

    async def _read(self, shard: Shard, place: Place, namespaces: Sequence[str], ids: list[int], *, asks: bool) -> Place:
        """Reads new requests. `asks`: reads though no look has seen anything new, for a call that does not wait and so
        makes no look.
        """
        epoch, last = shard.epoch, self._last.get(shard.number)
        if not epoch:
            return place
        after = place.number if place.epoch == epoch else 0
        known = last.number if last is not None and last.epoch == epoch else 0
        if place.epoch == epoch and known <= after and not asks:
            return place
        async with self._reads:
            rows = await shard.store.cancel_requests(after, namespaces, BATCH_MAX)
        ids += [id for _, id in rows]
        if len(rows) == BATCH_MAX:
            return Place(epoch, rows[-1][0])
        return Place(epoch, max([after, known, *(number for number, _ in rows)]))

    def _next_look(self) -> "asyncio.Task[None]":
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return self._looking

    async def _look(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._asked.wait()
        self._asked.clear()
        for shard in self._shards:
            with suppress(Fault):
                if epoch := shard.epoch:
                    self._last[shard.number] = Place(epoch, await shard.store.last_cancel_request())


def _parse(since: str | None, shards: int) -> list[Place]:
    if since is None:
        return [Place(0, 0)] * shards
    try:
        places = [Place(*(int(part) for part in place.split("-"))) for place in since.split(",")]
    except (TypeError, ValueError):
        places = []
    if len(places) != shards or not all(0 <= number < 2**63 for place in places for number in place):
        raise Invalid("since: give what the last answer had", field="since")
    return places
