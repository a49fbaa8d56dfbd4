"""Periodic tasks are put, paused, run and deleted here by anybody; what is due the leader of its shard enqueues
(`daemons/scheduler.py`).

A schedule is kept in the shard of its topic. Its name is looked for in every shard, so that another topic takes it
along.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from heapq import merge
from itertools import islice
from typing import Protocol

from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.shard import Shard
from mqueue.broker.slots import SlotMap
from mqueue.broker.store.schedules import ScheduleStore, TooMany
from mqueue.clock import Clock
from mqueue.errors import Invalid, NotFound, Unavailable
from mqueue.message import Accepted, NewMessage, RequestKey, TopicName
from mqueue.schedule import SCHEDULES_MAX, SECOND_US, Schedule, next_after, tagged


class Enqueue(Protocol):
    def __call__(self, messages: Sequence[NewMessage], key: RequestKey | None = None) -> Awaitable[Accepted]: ...


class Schedules:
    """The use cases of schedules. `enqueue`: as anybody does, for those who want a run now."""

    def __init__(self, shards: Sequence[Shard], slots: SlotMap, clock: Clock, enqueue: Enqueue) -> None:
        self._shards = shards
        self._slots = slots
        self._clock = clock
        self._enqueue = enqueue

    async def page(self, namespace: str, after: str, limit: int) -> list[Schedule]:
        async with _reported():
            pages = [await ScheduleStore(shard.store).page(namespace, after, limit) for shard in self._shards]
        return list(islice(merge(*pages, key=lambda each: each.name), limit))

    async def find(self, namespace: str, name: str) -> Schedule:
        async with _reported():
            known = await self._look(namespace, name)
        if known is None:
            raise _not_found(name)
        return known

    async def put(self, wanted: Schedule, *, declares: bool) -> Schedule:
        declared = declaration(wanted) if declares else None
        home = self._shards[self._slots.shard(TopicName(wanted.namespace, wanted.topic))]
        async with _reported():
            now_us = await self._now_us(home)
            there = await self._look(wanted.namespace, wanted.name)
            if there is not None and declared is not None and there.declared == declared:
                return there
            made = replaced(there, wanted, declared, now_us)  # refuses before anything is changed

            def decide(known: Schedule | None) -> Schedule | None:
                if known is None:
                    return made
                return None if declared is not None and known.declared == declared else replaced(known, wanted, declared, now_us)

            try:
                return await self._put(home, wanted.namespace, wanted.name, decide) or made
            except TooMany:
                raise Invalid(f"namespace {wanted.namespace} has {SCHEDULES_MAX:,} schedules, and may have no more", field="name") from None

    async def _put(self, home: Shard, namespace: str, name: str, decide: Callable[[Schedule | None], Schedule | None]) -> Schedule | None:
        """Puts it home, and deletes it in the other shards. Home's transaction ends first: whatever becomes of it, the
        schedule is somewhere.

        The shards are held in one order, so that two edits never wait for each other.
        """
        changed: Schedule | None = None
        async with AsyncExitStack() as elsewhere, AsyncExitStack() as at_home:
            for shard in self._shards:
                stack = at_home if shard is home else elsewhere
                editing = await stack.enter_async_context(ScheduleStore(shard.store).editing(namespace))
                if shard is home:
                    changed = await editing.change(name, decide, SCHEDULES_MAX)
                else:
                    await editing.delete(name)
        return changed

    async def pause(self, namespace: str, name: str) -> Schedule:
        return await self._edit(namespace, name, lambda known, _: known._replace(paused=True))

    async def resume(self, namespace: str, name: str) -> Schedule:
        return await self._edit(namespace, name, resumed)

    async def run(self, namespace: str, name: str, key: RequestKey | None) -> int:
        known = await self.find(namespace, name)
        message = NewMessage(
            namespace, known.topic, known.payload, known.priority, tagged(known.metadata, name, None), max_retries=known.max_retries,
            ttl=None if known.ttl_us is None else known.ttl_us / 1e6, lease=None if known.lease_ms is None else known.lease_ms / 1000,
        )  # fmt: skip
        return (await self._enqueue([message], key)).ids[0]

    async def delete(self, namespace: str, name: str) -> bool:
        async with _reported():
            return any([await ScheduleStore(shard.store).delete(namespace, name) for shard in self._shards])

    async def _edit(self, namespace: str, name: str, change: Callable[[Schedule, int], Schedule]) -> Schedule:
        async with _reported():
            for shard in self._shards:
                now_us = await self._now_us(shard)
                async with ScheduleStore(shard.store).editing(namespace) as editing:
                    edited = await editing.change(name, lambda known, at=now_us: None if known is None else change(known, at))  # type: ignore[misc]
                if edited is not None:
                    return edited
        raise _not_found(name)

    async def _look(self, namespace: str, name: str) -> Schedule | None:
        for shard in self._shards:
            if (known := await ScheduleStore(shard.store).find(namespace, name)) is not None:
                return known
        return None

    async def _now_us(self, shard: Shard) -> int:
        """Returns the time as the scheduler counts it."""
        return min(max(self._clock.wall_us(), shard.now_us()), (await shard.store.row()).wall_us)


def declaration(wanted: Schedule) -> bytes:
    """Returns what code says of it: the same again says nothing new."""
    s = wanted
    said = (s.topic, s.cron, s.timezone, s.every_us, s.catch_up, s.payload, s.metadata, s.priority, s.max_retries, s.lease_ms, s.ttl_us)
    return hashlib.blake2b(repr(said).encode(), digest_size=16).digest()


def replaced(known: Schedule | None, wanted: Schedule, declared: bytes | None, now_us: int) -> Schedule:
    """Returns `wanted` in the place of `known`: whether it is paused stays, and its next tick where its times are the
    same. Raises Invalid.
    """
    if known is not None:
        wanted = wanted._replace(paused=known.paused, last_at_us=known.last_at_us, declared=declared or known.declared)
        if (known.cron, known.timezone, known.every_us) == (wanted.cron, wanted.timezone, wanted.every_us):
            return wanted._replace(anchor_us=known.anchor_us, next_at_us=known.next_at_us)
    else:
        wanted = wanted._replace(declared=declared)
    wanted = wanted._replace(anchor_us=now_us // SECOND_US * SECOND_US if wanted.every_us else 0)
    next_us = next_after(wanted.spec, now_us)
    if next_us is None:
        raise Invalid(f"cron: {wanted.cron!r} never comes", field="cron")
    return wanted._replace(next_at_us=next_us)


def resumed(known: Schedule, now_us: int) -> Schedule:
    """Returns it unpaused: what would have come while it was paused does not come now. Raises Unavailable."""
    if not known.paused:
        return known
    try:
        return known._replace(paused=False, next_at_us=next_after(known.spec, now_us))
    except (KeyError, ValueError, OSError) as error:  # another broker took it, and knows more zones
        raise Unavailable(f"this broker does not know when {known.name} comes: {error}", retry_after=1) from error


@asynccontextmanager
async def _reported() -> AsyncIterator[None]:
    """Turns a store's fault into what a client is told."""
    try:
        yield
    except Fault as fault:
        raise unavailable(fault) from fault


def _not_found(name: str) -> NotFound:
    return NotFound(f"no schedule {name}", field="name")
