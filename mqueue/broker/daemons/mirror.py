"""The mirror writes long leases to PostgreSQL, so that a long job is not delivered again when Redis is lost."""

from typing import NamedTuple

from mqueue.broker.daemons.lead import Lead
from mqueue.broker.format import record

LEASES_MAX = 10_000  # those that end last: they have the most to lose


class Lease(NamedTuple):
    id: int
    epoch: int
    number: int
    until: int


class Mirror:
    """Writes long leases. A lease is long when two looks have seen it. The first look of a leader leaves what is
    mirrored as it is.
    """

    def __init__(self) -> None:
        self._seen: dict[int, bytes] = {}  # id → receipt
        self._term = 0  # the term in which they were seen

    async def mirror(self, lead: Lead) -> int:
        """Returns how many are mirrored now."""
        async with lead.shared.leases:
            return await self._mirror(lead)

    async def _mirror(self, lead: Lead) -> int:
        shard = lead.shard
        records = [record.unpack(data) for data in await shard.cache.leases(LEASES_MAX)]
        long = [r for r in records if self._seen.get(r.id) == r.receipt]
        self._seen, first, self._term = {r.id: r.receipt for r in records}, self._term != lead.term, lead.term
        if first:
            return 0
        if not long and not lead.mirrors:
            return 0
        leases = [Lease(r.id, int.from_bytes(r.receipt[:4]), int.from_bytes(r.receipt[4:]), r.until) for r in long]
        await lead.store.mirror_leases(lead.epoch, lead.term, leases)
        lead.mirrors = bool(leases)
        return len(leases)
