"""Dead letters are listed from both stores, and deleted in one."""

from collections.abc import Iterable, Sequence

from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.format import record
from mqueue.broker.shard import COLD, FLUSH_WAIT_S, Shard
from mqueue.broker.slots import SlotMap
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.lifecycle import State
from mqueue.message import PAGE_MAX, DeadLetter, TopicName, Verdict


class DeadLetters:
    def __init__(self, shards: Sequence[Shard], slots: SlotMap, clock: Clock) -> None:
        self._shards = shards
        self._slots = slots
        self._clock = clock

    async def page(self, namespace: str, topic: str, limit: int, after: int = 0) -> list[DeadLetter]:
        """Returns at most `limit` of them, by id; fewer where they weigh PAGE_MAX bytes. None are left where it is
        empty.
        """
        name = TopicName(namespace, topic)
        shard = self._shards[self._slots.shard(name)]
        fresh: list[tuple[bytes, bytes, bytes | None]] = []
        cut = None
        try:
            if shard.mode != COLD:  # first Redis: what a flush moves meanwhile is found in PostgreSQL
                fresh, cut = await shard.cache.dead(str(name), limit, after, PAGE_MAX)
            rows = await shard.store.dead_page(name, after, limit, PAGE_MAX)
        except Fault as fault:
            raise unavailable(fault) from fault
        cuts = [] if cut is None else [cut]
        if rows and rows[-1][-1] >= PAGE_MAX:
            cuts.append(rows[-1][0])
        found = {id: DeadLetter(id, *name, priority, payload, None if metadata is None else metadata.encode(), attempts, error, created, died)
                 for id, priority, attempts, error, created, died, payload, metadata, _ in rows}  # fmt: skip
        for data, body, error in fresh:
            r, b = record.unpack(data), record.open_body(body)
            text = error.decode() if error is not None else None
            letter = DeadLetter(r.id, *name, r.priority, b.payload, b.metadata, r.attempts, text, b.created_us, shard.now_us())
            found.setdefault(r.id, letter)
        return first_page(found.values(), limit, min(cuts, default=None))

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


def first_page(letters: Iterable[DeadLetter], limit: int, cut: int | None) -> list[DeadLetter]:
    """Returns the first of them by id, up to `limit` letters and PAGE_MAX bytes, and none after `cut`, where a store
    has left some out: those of the other would hide them.
    """
    page, weight = [], 0
    for letter in sorted(letters, key=lambda letter: letter.id)[:limit]:
        if weight >= PAGE_MAX or (cut is not None and letter.id > cut):
            break
        page.append(letter)
        weight += letter.weight
    return page
