"""Carries `task.enqueue` to the broker, and what a handle asks: one `Client` for the process, one `AsyncClient` for each event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from mqueue import wire

if TYPE_CHECKING:
    from mqueue.client import AsyncClient, Client


class Producer:
    """`url`, `token`: which broker; without them it is found as `mqueue.client.endpoint` says, at the first enqueue.

    `batch`: calls of one message each at the same time share a request.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, batch: bool = False) -> None:
        self._endpoint = (url, token)
        self._batch = batch
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncClient, AsyncGenerator[None, None]]]
        self._async = WeakKeyDictionary()

    def connect(self, url: str | None, token: str | None = None) -> None:
        """Enqueue to this broker from now on; what is None is found as `mqueue.client.endpoint` says."""
        with self._lock:
            self._endpoint, self._client, self._async = (url, token), None, WeakKeyDictionary()

    @property
    def endpoint(self) -> tuple[str | None, str | None]:
        """What it was told: URL and token."""
        return self._endpoint

    def enqueue_many(self, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return self.client().enqueue_many(items)

    async def enqueue_many_async(self, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return await (await self.async_client()).enqueue_many(items)

    def client(self) -> "Client":
        from mqueue.client import Client

        with self._lock:
            if self._client is None:
                self._client = Client(*self._endpoint, batch=self._batch)
            return self._client

    async def async_client(self) -> "AsyncClient":
        from mqueue.client import AsyncClient

        loop = asyncio.get_running_loop()
        if (known := self._async.get(loop)) is None:
            client = AsyncClient(*self._endpoint, batch=self._batch)
            closer = _closer(client.close)
            known = self._async[loop] = (client, closer)
            await anext(closer)
        return known[0]


async def _closer(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Once started, the loop ends it with its other async generators (`asyncio.run` does): nobody need close the client."""
    try:
        yield
    finally:
        await close()
