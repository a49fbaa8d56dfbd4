"""Carries `task.enqueue` to the broker, and what a handle asks: one `Client` for the process, one `AsyncClient` for
each event loop.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack
from weakref import WeakKeyDictionary

from mqueue import wire

if TYPE_CHECKING:
    from mqueue.client import AsyncClient, Client


class ClientOptions(TypedDict, total=False):
    """Of the clients, as `mqueue.client.Client` has them, and where not given with its defaults. The first use of one
    checks them.

    `timeout`: seconds for a call with all its retries. `retries`: False: everything is sent once. `connections`: kept
    open between calls. `batch`: calls of one message each at the same time share a request.
    """

    timeout: float
    retries: bool
    connections: int
    batch: bool


def check_names(options: ClientOptions) -> None:
    """Of options that a client is made with later. Raises TypeError."""
    known = ClientOptions.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise TypeError(f"there is no option {', '.join(map(repr, unknown))} for a client; there are {', '.join(sorted(known))}")


class Producer:
    """`url`, `token`: which broker; without them it is found as `mqueue.client.endpoint` says, at the first enqueue."""

    def __init__(self, url: str | None = None, token: str | None = None, **options: Unpack[ClientOptions]) -> None:
        check_names(options)
        self._endpoint = (url, token)
        self._options = options
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

    @property
    def options(self) -> ClientOptions:
        """What it was told of its clients."""
        return self._options

    def enqueue_many(self, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return self.client().enqueue_many(items)

    async def enqueue_many_async(self, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return await (await self.async_client()).enqueue_many(items)

    def client(self) -> "Client":
        from mqueue.client import Client

        with self._lock:
            if self._client is None:
                self._client = Client(*self._endpoint, **self._options)
            return self._client

    async def async_client(self) -> "AsyncClient":
        from mqueue.client import AsyncClient

        loop = asyncio.get_running_loop()
        if (known := self._async.get(loop)) is None:
            client = AsyncClient(*self._endpoint, **self._options)
            closer = self._closer(loop, client)
            known = self._async[loop] = (client, closer)
            await anext(closer)
        return known[0]

    async def _closer(self, loop: asyncio.AbstractEventLoop, client: "AsyncClient") -> AsyncGenerator[None, None]:
        """Once started, the loop ends it with its other async generators (`asyncio.run` does): nobody need close the
        client.

        The loop is forgotten by hand: an async generator holds its loop, so that the weak key alone never goes.
        """
        try:
            yield
        finally:
            known = self._async.get(loop)
            if known is not None and known[0] is client:
                del self._async[loop]
            await client.close()
