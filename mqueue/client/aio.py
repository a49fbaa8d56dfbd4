"""`AsyncClient` is the API for asyncio, over connections that are kept open. It belongs to the event loop that first
uses it.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, Unpack

from mqueue import message as m
from mqueue import wire
from mqueue.client import lean_aio, protocol, retry
from mqueue.client.endpoint import discover, transport
from mqueue.client.protocol import Call, EnqueueOptions, Extended, Settled
from mqueue.client.sharing_aio import AsyncSharing
from mqueue.errors import MQueueError, NotFound, Unavailable

if TYPE_CHECKING:
    from mqueue.client import library_aio

    Session = lean_aio.Session | library_aio.Session

T = TypeVar("T")


class AsyncClient:
    """It is a broker's API for asyncio; arguments and methods are those of `Client`, awaited. Close it, or
    use it as `async with`.

    `connections`: no more are open at a time; further calls wait for one.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        safe_retries: bool = True,
        retries: bool = True,
        batch: bool = False,
        timeout: float = protocol.TOTAL_S,
        connections: int = protocol.CONNECTIONS,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        protocol.check_limits(timeout, connections)
        endpoint = discover(url, token)
        self.url = endpoint.url
        self._token = endpoint.token
        self._tls = protocol.tls() if endpoint.url.startswith("https:") else None
        self._safe_retries = safe_retries and retries
        self._retries = retries
        self._timeout = timeout
        self._connections = connections
        self._jitter = jitter
        self._sleep = sleep
        self._closed = False
        self._session: Session | None = None
        self._old: list[Session] = []
        self._sharing = AsyncSharing(self._call, safe_retries=self._safe_retries) if batch else None

    async def enqueue(self, topic: str, payload: bytes, **options: Unpack[EnqueueOptions]) -> int:
        item = wire.EnqueueItem(topic=topic, payload=payload, **options)
        if self._sharing is not None:
            return await self._sharing.enqueue(item)
        return (await self._call(protocol.enqueue([item], safe_retries=self._safe_retries)))[0]

    async def enqueue_many(self, items: Sequence[wire.EnqueueItem], *, durability: m.Durability = "wal") -> list[int]:
        if self._sharing is not None and len(items) == 1 and durability == "wal":
            return [await self._sharing.enqueue(items[0])]
        ids: list[int] = []
        for batch in protocol.batches(items):
            made: list[int] = await self._call(protocol.enqueue(batch, safe_retries=self._safe_retries, durability=durability))
            ids += made
        return ids

    async def fetch(
        self,
        topics: str | Sequence[str],
        *,
        namespace: str = m.DEFAULT_NAMESPACE,
        limit: int = 10,
        wait: float = 0.0,
        lease: float | None = None,
    ) -> list[wire.Message]:
        return await self._call(protocol.fetch(topics, namespace, limit, wait, lease))

    async def poll(self, request: wire.Poll) -> wire.Polled:
        return await self._call(protocol.poll(request))

    async def ack(self, items: Sequence[Settled]) -> list[wire.Verdict]:
        return await self._chunked(protocol.ack_items(items), lambda part: protocol.settle("/ack", part))

    async def nack(self, items: Sequence[Settled], *, error: str | None = None, retry_after: float | None = None) -> list[wire.Verdict]:
        return await self._chunked(protocol.nack_items(items, error, retry_after), lambda part: protocol.settle("/nack", part))

    async def extend(self, items: Sequence[Extended], *, lease: float | None = None) -> list[wire.Verdict]:
        return await self._chunked(protocol.extend_items(items, lease), protocol.extend)

    async def dead_letters(self, topic: str, *, namespace: str = m.DEFAULT_NAMESPACE, limit: int = 100, after: int = 0) -> list[wire.DeadItem]:
        return await self._call(protocol.dead_letters(topic, namespace, limit, after))

    async def delete_dead(self, topic: str, ids: Sequence[int], *, namespace: str = m.DEFAULT_NAMESPACE) -> list[wire.Verdict]:
        return await self._chunked(ids, lambda part: protocol.delete_dead(topic, namespace, part))

    async def topics(self, namespace: str | None = None) -> list[wire.Topic]:
        return await self._call(protocol.topics(namespace))

    async def workers(self, namespace: str | None = None) -> list[wire.Worker]:
        return await self._call(protocol.workers(namespace))

    async def tell(self, worker: wire.Worker) -> None:
        await self._call(protocol.tell(worker))

    async def message(self, id: int) -> wire.Status | None:
        try:
            return await self._call(protocol.message(id))
        except NotFound:
            return None

    async def cancel(self, id: int) -> wire.Cancel:
        return await self._call(protocol.cancel(id))

    async def cancelled(self, namespaces: Sequence[str], *, since: str | None = None, wait: float = 0.0) -> wire.Cancelled:
        return await self._call(protocol.cancelled(namespaces, since, wait))

    async def result(
        self, id: int, *, topic: str | None = None, namespace: str = m.DEFAULT_NAMESPACE, wait: float = 0.0, within: float = math.inf
    ) -> bytes:
        return await self._call(protocol.result(id, topic, namespace, wait, within))

    async def schedules(self, namespace: str = m.DEFAULT_NAMESPACE) -> list[wire.Schedule]:
        found: list[wire.Schedule] = []
        while page := await self._call(protocol.schedules(namespace, found[-1].name if found else "", m.BATCH_MAX)):
            found += page
            if len(page) < m.BATCH_MAX:
                break
        return found

    async def schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule | None:
        try:
            return await self._call(protocol.schedule(name, namespace))
        except NotFound:
            return None

    async def put_schedule(self, name: str, item: wire.ScheduleItem) -> wire.Schedule:
        return await self._call(protocol.put_schedule(name, item))

    async def pause_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule:
        return await self._call(protocol.pause_schedule(name, namespace))

    async def resume_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule:
        return await self._call(protocol.resume_schedule(name, namespace))

    async def run_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> int:
        return await self._call(protocol.run_schedule(name, namespace, safe_retries=self._safe_retries))

    async def delete_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> bool:
        return await self._call(protocol.delete_schedule(name, namespace))

    async def health(self) -> bool:
        try:
            return await self._call(protocol.health())
        except MQueueError:
            return False

    async def ready(self) -> wire.Ready:
        return await self._call(protocol.ready())

    def renew(self) -> None:
        """Calls from now on take new connections. Those under way go on."""
        if self._session is not None:
            self._old.append(self._session)
            self._session = None

    async def drop_old(self) -> None:
        """Close the connections from before `renew`: calls that are under way there raise Unavailable."""
        while self._old:
            session = self._old[0]
            await session.close()
            if session in self._old:  # not before it is closed: if this is cancelled, the next call closes it
                self._old.remove(session)

    async def close(self) -> None:
        if self._sharing is not None:
            await self._sharing.close()
        self._closed = True
        await self.drop_old()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _chunked(self, items: Sequence[T], build: Callable[[Sequence[T]], Call[list[wire.Verdict]]]) -> list[wire.Verdict]:
        return [verdict for part in protocol.chunks(items) for verdict in await self._call(build(part))]

    async def _call(self, call: Call[T]) -> T:
        failed, left = 0, protocol.within_s(call, self._timeout)
        until = time.monotonic() + left
        while True:
            if self._closed:
                raise Unavailable(protocol.CLOSED)
            try:
                return await self._send(call, left)
            except MQueueError as error:
                failed += 1
                pause = retry.pause_s(failed, error, self._jitter()) if self._retries and call.repeatable else None
                if pause is None or time.monotonic() + pause >= until:
                    raise
            await self._sleep(pause)
            left = until - time.monotonic()

    async def _send(self, call: Call[T], left: float) -> T:
        if self._session is None:
            self._session = self._open()
        try:
            reply = await self._session.send(call, max(left, protocol.LEAST_S))
        except OSError as error:
            raise protocol.unreachable(self.url, error) from error
        return protocol.answer(call, reply.status, reply.headers, reply.body)

    def _open(self) -> "Session":
        if transport() == "library":
            from mqueue.client import library_aio

            return library_aio.Session(self.url, self._token, self._connections, self._tls)
        return lean_aio.Session(self.url, self._token, self._connections, self._tls)
