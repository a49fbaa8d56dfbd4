"""The mover takes keys of whole requests out of Redis where it holds many, once PostgreSQL has them.

Each call of a client has such a key, for 10 minutes. Until a shard takes some 80 of them a second all are in Redis.
Of more, those that end first move; a broker looks for them in PostgreSQL only while there are some.
"""

from mqueue.broker.daemons.lead import Lead
from mqueue.broker.format import record
from mqueue.broker.store.rows import Key
from mqueue.message import BATCH_MAX

KEEP = 50_000  # half of what apply.lua takes at most
ROUNDS_MAX = 16  # pages in one go


class KeyMover:
    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep

    async def move(self, lead: Lead) -> int:
        """Moves what is over, but for what is not flushed: it may not be durable yet, and a repeat of its key must
        wait. Returns how many keys went.
        """
        moved, cache = 0, lead.shard.cache
        for _ in range(ROUNDS_MAX):
            found = await cache.request_keys(lead.epoch, lead.term, self._keep, BATCH_MAX // 2)
            if not found:
                break
            positions = {broker.node: broker.position for broker in await lead.shard.store.brokers()}
            durable = [(key_hash, data) for key_hash, data in found if _is_flushed(data, positions)]
            if durable:
                keys = [_key(key_hash, data) for key_hash, data in durable]
                await lead.store.keep_keys(lead.epoch, lead.term, keys)
                moved += await cache.forget_keys(lead.epoch, lead.term, max(key.expires for key in keys), durable)
            if len(durable) < len(found):
                break
        return moved


def _is_flushed(data: bytes, positions: dict[int, int]) -> bool:
    """Has the batch that brought this key come into PostgreSQL? `positions`: of the brokers, by node."""
    _, _, node, sequence, _, _, _ = record.IDEMPOTENCY.unpack_from(data)
    return bool(sequence <= positions.get(node, 0))


def _key(key_hash: bytes, data: bytes) -> Key:
    id, body_hash, _, _, expires, _, _ = record.IDEMPOTENCY.unpack_from(data)
    return Key(key_hash, body_hash, id, expires, data[record.IDEMPOTENCY.size :])
