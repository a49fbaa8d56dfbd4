"""The leader deletes what is past its time: messages, idempotency keys, results, requests to cancel, workers."""

from collections import Counter
from collections.abc import Sequence

from mqueue.broker.store import write
from mqueue.broker.store.leader.session import LeaderSession
from mqueue.broker.store.write import Ledger


class PruneStore:
    """Each method is one transaction. Only that of the messages is fenced: the other rows tell of no epoch."""

    def __init__(self, session: LeaderSession) -> None:
        self._session = session

    async def expired_page(self, now: int, after: tuple[int, int], limit: int) -> list[tuple[int, int, int]]:
        """Returns id, version and expiry of rows past their TTL, beyond (expiry, id)."""
        expires, id = after
        return await self._session.ask("expired_page", now=now, expires=expires, id=id, limit=limit)

    async def expire(self, epoch: int, term: int, versions: Sequence[tuple[int, int]]) -> None:
        """Deletes messages up to these versions, by id, and counts them as expired."""
        connection = self._session.connection
        async with self._session.fenced(epoch, term):
            deleted = await write.delete_messages(connection, versions)
            ledger = Ledger()
            for topic_id, count in Counter(deleted.values()).items():
                ledger.add(topic_id, "expired", count)
            await write.write_ledger(connection, ledger)

    async def keys(self, now: int, limit: int) -> int:
        """Deletes idempotency keys. Returns how many went."""
        return len(await self._session.ask("prune_keys", now=now, limit=limit))

    async def cancel_requests(self, age_s: float, limit: int) -> int:
        """Deletes requests to cancel. Returns how many went."""
        return len(await self._session.ask("prune_cancel_requests", age_s=age_s, limit=limit))

    async def results(self, limit: int) -> int:
        """Deletes results. Returns how many went."""
        return len(await self._session.ask("prune_results", limit=limit))

    async def workers(self, unheard_s: float) -> None:
        """Deletes workers that have not been heard of for so long."""
        await self._session.ask("prune_workers", unheard=unheard_s)
