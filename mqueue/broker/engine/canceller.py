"""A message is cancelled by its id: what waits is taken away; what runs is flagged, so that its delivery is its last,
and its worker hears of it.

Redis decides (`cache/lua/apply.lua`), in a batch like all settles: the outcome is in the log. Of what only PostgreSQL
has, the broker brings the row along, with how far the shard was flushed when it was read: where a flush has come
between, the row may be no longer true, and it looks again.
"""

from collections.abc import Collection, Sequence

from mqueue.broker.cache.calls import Outcome, SettleArgs
from mqueue.broker.commit.committer import Committer
from mqueue.broker.engine.cancel_notices import Cancellations
from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.format import record
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import COLD, Shard
from mqueue.errors import Unavailable
from mqueue.message import Cancelled, Settle

LOOKS_MAX = 50
ANSWERS: dict[bytes, Cancelled] = {b"o": "cancelled", b"a": "cancelled", b"r": "cancelling", b"g": "gone"}


class Canceller:
    def __init__(self, shards: Sequence[Shard], committers: Sequence[Committer], told: Cancellations, metrics: Metrics) -> None:
        self._shards = shards
        self._committers = committers
        self._told = told
        self._metrics = metrics

    async def cancel(self, id: int, namespaces: Collection[str] | None) -> Cancelled:
        """Cancels a message of these namespaces (None: of all); anything else is `gone`."""
        failure: Unavailable | None = None
        for shard in sorted(self._shards, key=lambda shard: not shard.serving.is_set()):  # an id does not tell its shard
            try:
                answer = await self._cancel_in(shard, id, namespaces)
            except Unavailable as error:
                failure = error
            except Fault as fault:
                shard.suspect.set()
                failure = unavailable(fault)
            else:
                if answer != "gone":
                    return answer
        if failure is not None:
            raise failure
        return "gone"

    async def _cancel_in(self, shard: Shard, id: int, namespaces: Collection[str] | None) -> Cancelled:
        for _ in range(LOOKS_MAX):
            await shard.wait_serving()
            topic, row = await self._find(shard, id)
            namespace, _, name = topic.partition("/")
            if topic and namespaces is not None and namespace not in namespaces:
                return "gone"
            epoch = shard.epoch
            outcome = await self._ask(shard, Settle(id, namespace, name, "cancel"), row)
            if (answer := ANSWERS.get(outcome.verdict)) is None:
                continue
            if answer == "gone" and not topic and await self._has_come(shard, id):
                continue
            if outcome.verdict == b"o":
                self._metrics.cancelled(namespace, 1)
            if answer == "cancelling":
                if shard.mode != COLD:
                    await shard.store.request_cancel(id, namespace)
                    if (await shard.store.row()).epoch != epoch:  # its flag may be lost, and the next epoch has not seen the request
                        continue
                self._told.look()
            return answer
        raise Unavailable(f"message {id} is being flushed again and again", retry_after=1)

    async def _has_come(self, shard: Shard, id: int) -> bool:
        """Is a message there that nobody knew of just now? It came out of the log of a broker that was away when this
        epoch began. Raises Unavailable where that broker is away still.
        """
        await shard.may_get(id)
        topic, _ = await self._find(shard, id)
        return bool(topic)

    async def _find(self, shard: Shard, id: int) -> tuple[str, bytes]:
        """Returns its topic, and what PostgreSQL has of it where Redis knows nothing. An empty topic: it is not there,
        or has ended.
        """
        if shard.mode != COLD:
            data, _, _ = await shard.cache.record(id.to_bytes(8))
            if data is not None:
                return record.unpack(data).topic, b""
        return await shard.store.row_to_cancel(id)

    async def _ask(self, shard: Shard, settle: Settle, row: bytes) -> Outcome:
        args = SettleArgs(settle.id.to_bytes(8), f"{settle.namespace}/{settle.topic}".encode(), "cancel", b"", b"", row)
        return (await self._committers[shard.number].settle([settle], [args]))[0]
