"""A producer carries `task.enqueue`, and what a handle asks, to the broker. It has one `Client` for the process and one
`AsyncClient` for each event loop.
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
    """These are options of the clients, as `mqueue.client.Client` has them, with its defaults. A client checks them at
    its first use.

    `timeout` is the time in seconds for a call with all its retries. With `retries=False` everything is sent once. No
    more `connections` are open at a time. With `batch` calls of one message each share a request when they come at
    the same time.
    """

    timeout: float
    retries: bool
    connections: int
    batch: bool


def check_names(options: ClientOptions) -> None:
    """This checks the names of options that a client is made with later. Raises TypeError."""
    known = ClientOptions.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise TypeError(f"there is no option {', '.join(map(repr, unknown))} for a client; there are {', '.join(sorted(known))}")


class Producer:
    """`url` and `token` name its broker; else it is found at the first use, as `mqueue.client.endpoint` says."""

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
        """These are the URL and the token that it was told."""
        return self._endpoint

    @property
    def options(self) -> ClientOptions:
        """These are the options that it was told of its clients."""
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
        """This closes the client when its loop ends, so that nobody else must: `asyncio.run` ends all async generators.

        The entry of the loop is deleted by hand: an async generator holds its loop, so that the weak key alone never
        goes.
        """
        try:
            yield
        finally:
            known = self._async.get(loop)
            if known is not None and known[0] is client:
                del self._async[loop]
            await client.close()
