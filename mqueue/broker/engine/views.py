"""People see topics with their depths and counters here, and one message by its id."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from itertools import chain

from mqueue.broker.cache.calls import Depths
from mqueue.broker.engine.edge.joined import all_that_answer, first_of
from mqueue.broker.faults import Fault
from mqueue.broker.format import record
from mqueue.broker.shard import COLD, Shard
from mqueue.errors import Unavailable
from mqueue.lifecycle import GONE, State
from mqueue.message import MessageStatus, TopicName, TopicStats

STATES = {"r": "ready", "d": "delayed", "l": "leased", "s": "waiting", "x": "dead", "n": "waiting"}
LOOKS_MAX, LOOK_PAUSE_S = 5, 0.02
GAP_S = 0.1  # between an ack and its result, at most, as a rule
LOOK_S = 0.05  # a flush comes every 60 ms on a busy shard: a look that takes longer would be repeated in vain
TOPICS_S = 6.0  # a shard whose store is away says so sooner; what has very many topics takes its time
LEDGER = ("enqueued", "acked", "dead", "expired", "purged", "cancelled")


class Views:
    """Answers what people look at. `progress`: of a message that runs, and its note. `leaves(id)`: is it just leaving a
    result? `place`: a topic's shard.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        progress: Callable[[int, TopicName], Awaitable[tuple[float | None, str | None]]],
        leaves: Callable[[int], bool] = lambda id: False,
        place: Callable[[TopicName], int] = lambda name: 0,
    ) -> None:
        self._shards = shards
        self._progress = progress
        self._leaves = leaves
        self._place = place

    async def topics(self, namespaces: Sequence[str] | None, missing: set[int] | None = None) -> list[TopicStats]:
        """Returns those of the shards that answer. `missing` gets the others' numbers."""
        places: set[int] = set()
        per_shard = await all_that_answer([self._topics_of(shard, namespaces) for shard in self._shards], places, TOPICS_S)
        if missing is not None:
            missing |= {self._shards[place].number for place in places}
        return sorted(chain.from_iterable(per_shard), key=lambda t: (t.namespace, t.topic))

    async def _topics_of(self, shard: Shard, namespaces: Sequence[str] | None) -> list[TopicStats]:
        if shard.mode == COLD:
            return await self._cold_topics_of(shard, namespaces)
        depths, counts = await self._counts(shard, namespaces)
        found = []
        for topic in sorted({*depths, *counts}):
            d, row = depths.get(topic), counts.get(topic)
            pending, dead = row[:2] if row else (0, 0)
            ledger = dict(zip(LEDGER, row[2:], strict=True)) if row else {}
            namespace, _, name = topic.partition("/")
            leased, unflushed = (d.leased, d.unflushed) if d else (0, 0)
            found.append(
                TopicStats(
                    namespace, name, shard.number, d.ready if d else 0, d.delayed if d else 0, leased,
                    max(0, pending + unflushed - leased), dead + (d.dead if d else 0), ledger,
                )
            )  # fmt: skip
        return found

    async def _counts(self, shard: Shard, namespaces: Sequence[str] | None) -> tuple[dict[str, Depths], dict[str, tuple[int, ...]]]:
        """Returns what Redis and PostgreSQL count, by topic. It looks again where a flush came between, since what that
        moves would count in both; of very many rows the counts are as of about the same time.
        """
        wanted = None if namespaces is None else frozenset(namespaces)
        for look in range(LOOKS_MAX):
            if look:
                await asyncio.sleep(LOOK_PAUSE_S)
            began = shard.clock.monotonic()
            known = await shard.cache.trimmed()
            hot = [t for t in await shard.cache.topics() if wanted is None or t.partition("/")[0] in wanted]
            depths = dict(zip(hot, await shard.cache.depths(hot), strict=True))
            counts = {f"{row[0]}/{row[1]}": row[2:] for row in await shard.store.topic_counts(namespaces)}
            if (await shard.store.row()).dirty_number == known or shard.clock.monotonic() - began > LOOK_S:
                break
        return depths, counts

    async def _cold_topics_of(self, shard: Shard, namespaces: Sequence[str] | None) -> list[TopicStats]:
        """PostgreSQL has all there is: of what waits, nothing is ready beforehand."""
        there = await shard.store.cold_counts(namespaces)
        found = []
        for namespace, name, pending, dead, *ends in await shard.store.topic_counts(namespaces):
            leased, delayed = there.get(f"{namespace}/{name}", (0, 0))
            ledger = dict(zip(LEDGER, ends, strict=True))
            found.append(TopicStats(namespace, name, shard.number, 0, delayed, leased, max(0, pending - leased - delayed), dead, ledger))
        return found

    async def message(self, id: int, namespaces: Collection[str] | None = None, name: TopicName | None = None) -> MessageStatus | None:
        """Looks for a message of these namespaces (None: of all), where it is if its topic is named. What is about to
        leave its result is looked for again.
        """
        shards = self._shards if name is None else [self._shards[self._place(name)]]
        leaves = self._leaves(id)
        found = await self.look(id, namespaces, shards)
        if found is None and (leaves or self._leaves(id)):
            await asyncio.sleep(GAP_S)
            found = await self.look(id, namespaces, shards)
        return found if found is None or name in (None, (found.namespace, found.topic)) else None

    async def look(self, id: int, namespaces: Collection[str] | None, shards: Sequence[Shard]) -> MessageStatus | None:
        """Returns it as it is at this moment. One of these shards that has it answers, however the others are. None
        only where it is in none: raises Unavailable where one does not answer, or a log that is away may have it.
        """
        return await first_of([self._look(shard, id, namespaces) for shard in shards])

    async def _look(self, shard: Shard, id: int, namespaces: Collection[str] | None) -> MessageStatus | None:
        try:
            found = await self._found(shard, id, namespaces)
            if found is None and await shard.may_get(id):
                found = await self._found(shard, id, namespaces)
        except Fault as fault:
            raise Unavailable(f"shard {shard.number} does not answer, and may have message {id}", retry_after=1) from fault
        if found is not None and found.state == "leased":
            progress, note = await self._progress(id, TopicName(found.namespace, found.topic))
            return replace(found, progress=progress, note=note)
        return found

    async def _found(self, shard: Shard, id: int, namespaces: Collection[str] | None) -> MessageStatus | None:
        found = await self._live(shard, id, namespaces)
        if found is None:
            return await self._done(shard, id, namespaces)
        return found if namespaces is None or found.namespace in namespaces else None

    async def _live(self, shard: Shard, id: int, namespaces: Collection[str] | None) -> MessageStatus | None:
        """Returns it where it waits, runs or is dead."""
        data, body, error = (None,) * 3 if shard.mode == COLD else await shard.cache.record(id.to_bytes(8))
        if data is not None:
            if State(data[:1]) in GONE or body is None:
                return None
            r, b = record.unpack(data), record.open_body(body)
            return MessageStatus(
                id, *r.topic_name, STATES[r.state.decode()], r.priority, r.attempts, r.max_retries, b.payload, b.metadata,  # type: ignore[arg-type]
                r.due, b.created_us, error.decode() if error is not None else None, bool(r.flags & record.CANCELLING),
            )  # fmt: skip
        row = await shard.store.message_by_id(id, namespaces)
        if row is None:
            return None
        namespace, topic, dead, leased, priority, attempts, retries, payload, text_of_metadata, due, created, text, cancelling, due_clock = row
        metadata = None if text_of_metadata is None else text_of_metadata.encode()
        due_by = due_clock if shard.mode == COLD else shard.now_us()
        state = "dead" if dead else "leased" if leased and shard.mode == COLD else "waiting" if due <= due_by else "delayed"
        return MessageStatus(
            id, namespace, topic, state, priority, attempts, retries, payload, metadata, due, created, text, cancelling  # type: ignore[arg-type]
        )  # fmt: skip

    async def _done(self, shard: Shard, id: int, namespaces: Collection[str] | None) -> MessageStatus | None:
        """Returns one whose result is kept: of the message there is nothing left but that. The times are
        when it came.
        """
        kept = await shard.store.result_of(id, None, namespaces, values=False)
        if kept is None:
            return None
        namespace, topic, stored_us, _ = kept
        return MessageStatus(id, namespace, topic, "done", 0, 0, 0, b"", None, stored_us, stored_us)
