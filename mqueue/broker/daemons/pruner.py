"""Prune: rows past their TTL that Redis does not know (what it knows it expires itself), and idempotency keys whose time is over."""

from collections import Counter

from mqueue.broker.daemons.lead import Lead
from mqueue.broker.store import write
from mqueue.broker.store.write import Ledger
from mqueue.message import BATCH_MAX


class Pruner:
    async def prune(self, lead: Lead) -> None:
        """One page of each."""
        shard = lead.shard
        now = shard.clock_us
        rows = await shard.store.expired_page(lead.connection, now, BATCH_MAX)
        if rows:
            known = await shard.cache.known([id for id, _ in rows])
            async with shard.store.fenced(lead.connection, lead.epoch, lead.term):
                deleted = await write.delete_messages(lead.connection, [row for row in rows if row[0] not in known])
                ledger = Ledger()
                for topic_id, count in Counter(deleted.values()).items():
                    ledger.add(topic_id, "expired", count)
                await write.write_ledger(lead.connection, ledger)
        await shard.store.prune_keys(lead.connection, now, BATCH_MAX)
