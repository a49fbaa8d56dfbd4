"""`mqueue verify`: does the ledger add up? Per topic, in one moment of its shard's PostgreSQL; what is not flushed yet
counts nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mqueue.broker.faults import Fault
from mqueue.broker.store.shard import ShardStore
from mqueue.errors import MQueueError


@dataclass(frozen=True, slots=True)
class Line:
    """A topic's ledger. `rows`: its messages in PostgreSQL; `refused`: those that it refused,
    set aside in the table of that name.
    """

    topic: str
    shard: int
    enqueued: int
    acked: int
    dead: int
    expired: int
    purged: int
    cancelled: int
    rows: int
    refused: int

    @property
    def drift(self) -> int:
        return self.enqueued - self.acked - self.dead - self.expired - self.purged - self.cancelled - self.rows - self.refused


async def ledgers(urls: Sequence[str]) -> list[Line]:
    """Returns the ledgers of all shards, whose databases these are. Raises MQueueError where one does not answer."""
    found: list[Line] = []
    for number, url in enumerate(urls):
        store = ShardStore(number, url)
        try:
            await store.open()
            found += [Line(f"{row[0]}/{row[1]}", number, *row[2:]) for row in await store.ledger()]
        except Fault as fault:
            raise MQueueError(str(fault)) from fault
        finally:
            await store.close()
    return found
