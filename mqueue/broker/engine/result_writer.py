"""Results on their way into PostgreSQL are gathered: all that wait become one INSERT, one at a time for a shard. While
it is under way the next gathers.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mqueue.broker.shard import FLUSH_WAIT_S
from mqueue.broker.store.shard import ShardStore
from mqueue.errors import Unavailable
from mqueue.message import BATCH_MAX, BODY_MAX, Result

WAITING_MAX = 64 * 1024 * 1024  # bytes of the results that wait


class Request(NamedTuple):
    results: Sequence[Result]
    size: int  # bytes
    done: "asyncio.Future[None]"


class ResultWriter:
    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._waiting: deque[Request] = deque()
        self._size = 0  # bytes that wait
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, results: Sequence[Result]) -> None:
        """Returns when PostgreSQL has them all. Raises StoreLost; Unavailable when too many wait, or it does not take
        them in FLUSH_WAIT_S.
        """
        size = sum(len(r.value) for r in results)
        if self._size and self._size + size > WAITING_MAX:
            raise Unavailable("too many results wait for PostgreSQL", retry_after=1)
        request = Request(results, size, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._size += size
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="results")
        try:
            async with asyncio.timeout(FLUSH_WAIT_S):
                await request.done
        except TimeoutError:  # it may still write them; what else came with them must be told
            raise Unavailable("PostgreSQL has not taken a result: it is settled, send it again", retry_after=1) from None

    async def _write(self) -> None:
        try:
            while batch := self._gather():
                latest: dict[tuple[int, str, str], Result] = {}  # one INSERT cannot change a row twice
                for result in sorted((r for request in batch for r in request.results), key=_order):  # by id: two brokers never deadlock
                    latest[result.id, result.namespace, result.topic] = result
                error: Exception | None = None
                try:
                    await self._store.keep_results(list(latest.values()))
                except Exception as raised:
                    error = raised
                for request in batch:
                    if request.done.done():
                        continue
                    if error is None:
                        request.done.set_result(None)
                    else:
                        request.done.set_exception(error)
        finally:
            self._writing = None

    def _gather(self) -> list[Request]:
        """Takes as many of those that wait as one statement takes; at least one."""
        batch: list[Request] = []
        count = size = 0
        while self._waiting:
            first = self._waiting[0]
            if batch and (count + len(first.results) > BATCH_MAX or size + first.size > BODY_MAX):
                break
            batch.append(self._waiting.popleft())
            self._size -= first.size
            count, size = count + len(first.results), size + first.size
        return batch


def _order(result: Result) -> tuple[int, bytes]:
    return result.id, result.receipt
