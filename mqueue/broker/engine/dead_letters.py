"""Dead letters are listed from both stores, and deleted in one."""

from collections.abc import Sequence

from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.format import record
from mqueue.broker.shard import COLD, FLUSH_WAIT_S, Shard
from mqueue.broker.slots import SlotMap
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.lifecycle import State
from mqueue.message import DeadLetter, TopicName, Verdict


class DeadLetters:
    def __init__(self, shards: Sequence[Shard], slots: SlotMap, clock: Clock) -> None:
        self._shards = shards
        self._slots = slots
        self._clock = clock

    async def page(self, namespace: str, topic: str, limit: int, after: int = 0) -> list[DeadLetter]:
        name = TopicName(namespace, topic)
        shard = self._shards[self._slots.shard(name)]
        try:
            fresh = (
                [] if shard.mode == COLD else await shard.cache.dead(str(name), limit, after)
            )  # first Redis: what a flush moves meanwhile is found in PostgreSQL
            rows = await shard.store.dead_page(name, after, limit)
        except Fault as fault:
            raise unavailable(fault) from fault
        found = {id: DeadLetter(id, *name, priority, payload, None if metadata is None else metadata.encode(), attempts, error, created, died)
                 for id, priority, attempts, error, created, died, payload, metadata in rows}  # fmt: skip
        for data, body, error in fresh:
            r, b = record.unpack(data), record.open_body(body)
            text = error.decode() if error is not None else None
            letter = DeadLetter(r.id, *name, r.priority, b.payload, b.metadata, r.attempts, text, b.created_us, shard.now_us())
            found.setdefault(r.id, letter)
        return [found[id] for id in sorted(found)[:limit]]

    async def delete(self, namespace: str, topic: str, ids: Sequence[int]) -> list[Verdict]:
        name = TopicName(namespace, topic)
        shard = self._shards[self._slots.shard(name)]
        try:
            await self._until_flushed(shard, name, ids)
            deleted = await shard.store.delete_dead(name, ids)
        except Fault as fault:
            raise unavailable(fault) from fault
        return ["ok" if id in deleted else "gone" for id in ids]

    async def _until_flushed(self, shard: Shard, name: TopicName, ids: Sequence[int]) -> None:
        """Waits until those still in Redis are flushed: dead letters are deleted in one place, PostgreSQL."""
        deadline = self._clock.monotonic() + FLUSH_WAIT_S
        waiting = [] if shard.mode == COLD else list(ids)
        while True:
            data = [(id, (await shard.cache.record(id.to_bytes(8)))[0]) for id in waiting]
            waiting = [id for id, r in data if r is not None and r[:1] == State.DEAD.value and record.topic(r) == str(name)]
            if not waiting:
                return
            if self._clock.monotonic() >= deadline:
                raise Unavailable("the dead letters are not flushed yet", retry_after=1)
            await shard.hurry_flush()
