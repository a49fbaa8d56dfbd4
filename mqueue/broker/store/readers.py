"""Readers bound what users read of PostgreSQL for their own eyes (topics, dead letters, single messages): no namespace
takes all connections, and none lets more requests wait than a few.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mqueue.errors import Unavailable

AT_ONCE = 2  # connections of one namespace; the pool has more
WAITING_MAX = 32  # requests of one namespace
WAIT_S = 2.0


class _Line:
    """One namespace's."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.count = 0  # those that read or wait


class Readers:
    def __init__(self) -> None:
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Waits for this namespace's turn. Raises Unavailable where too many wait, or for too long. `namespace`: all of
        those that whoever asks may see; empty: he may see all.
        """
        line = self._lines[namespace]
        if line.count >= AT_ONCE + WAITING_MAX:
            raise Unavailable(f"more than {WAITING_MAX} requests of {namespace or 'all namespaces'} wait to read", retry_after=1)
        line.count += 1
        try:
            try:
                async with asyncio.timeout(WAIT_S):
                    await line.turns.acquire()
            except TimeoutError:
                raise Unavailable(f"too much is read of {namespace or 'all namespaces'}: no turn in {WAIT_S:g} s", retry_after=1) from None
            try:
                yield
            finally:
                line.turns.release()
        finally:
            line.count -= 1
            if not line.count:
                del self._lines[namespace]
