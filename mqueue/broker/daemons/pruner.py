"""The pruner deletes rows past their TTL that Redis does not know (what it knows it expires itself), idempotency keys
and results whose time is over, requests to cancel what is no more, and workers that are gone.
"""

from mqueue.broker.daemons.lead import Lead
from mqueue.message import BATCH_MAX

REQUEST_KEPT_S = 600.0  # so long a worker may be without its broker, and hear of a cancellation all the same
UNHEARD_S = 60.0  # of workers: long after nobody shows them any more
PAGES_MAX = 20  # of each in one go, so that a flush gets its turn


class Pruner:
    def __init__(self) -> None:
        self._after = (0, 0)  # expiry and id of the last row looked at: Redis may know a great many, and they stay

    async def prune(self, lead: Lead) -> bool:
        """Deletes page after page. Returns True when more is left."""
        more = False
        await lead.store.prunes.workers(UNHEARD_S)
        for turn in (self._rows, self._keys, self._cancel_requests, self._results):
            more = await turn(lead) or more
        return more

    async def _rows(self, lead: Lead) -> bool:
        shard = lead.shard
        for _ in range(PAGES_MAX):
            rows = await lead.store.prunes.expired_page(shard.clock_us, self._after, BATCH_MAX)
            if not rows:
                break
            known = await shard.cache.known([id for id, _, _ in rows])
            await lead.store.prunes.expire(lead.epoch, lead.term, [(id, version) for id, version, _ in rows if id not in known])
            id, _, expires = rows[-1]
            self._after = (expires, id)
        else:
            return True
        self._after = (0, 0)
        return False

    async def _keys(self, lead: Lead) -> bool:
        for _ in range(PAGES_MAX):
            if await lead.store.prunes.keys(lead.shard.clock_us, BATCH_MAX) < BATCH_MAX:
                return False
        return True

    async def _cancel_requests(self, lead: Lead) -> bool:
        return await lead.store.prunes.cancel_requests(REQUEST_KEPT_S, BATCH_MAX) == BATCH_MAX

    async def _results(self, lead: Lead) -> bool:
        for _ in range(PAGES_MAX):
            if await lead.store.prunes.results(BATCH_MAX) < BATCH_MAX:
                return False
        return True
