"""`Client` is the API for threads, over a pool of connections that are kept open. It may be shared by threads, and over
a fork.
"""

import math
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, Unpack

from mqueue import message as m
from mqueue import wire
from mqueue.client import lean_sync, protocol, retry
from mqueue.client.endpoint import discover, transport
from mqueue.client.protocol import Call, EnqueueOptions, Extended, Settled
from mqueue.client.sharing_sync import Sharing
from mqueue.errors import MQueueError, NotFound, Unavailable

if TYPE_CHECKING:
    from mqueue.client import library_sync

T = TypeVar("T")


class Client:
    """It is a broker's API whose calls block. Without arguments it finds the broker as `mqueue.client.endpoint` says.

    `timeout`: seconds after which a call gives up, its retries and the pauses between them included, beyond the `wait`
    that it names itself. Here, not in `AsyncClient`, the look-up of the broker's name comes on top. A call that takes
    several requests (more than 1,000 items) has it for each.

    `retries`: False sends everything once. `safe_retries`: enqueues without an idempotency key get one, and are sent
    again when a connection breaks or the broker answers 503; without it, only calls that do no harm twice are.
    `connections`: no more are open at a time; further calls wait for one.

    `batch`: threads that enqueue one message each at the same time share a request; each gets its own id, or its own
    error. A call may have to wait for the request that is under way, so it may take twice the `timeout`, and longer
    only where the broker refuses others of its request.

    Every method raises the errors of `mqueue.errors`; `Unavailable` also when the broker cannot be reached, or
    the client is closed.
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
        sleep: Callable[[float], None] = time.sleep,
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
        self._owner = os.getpid()
        self._pool = self._open()
        self._closed = False
        self._batch = batch
        self._sharing: dict[int, Sharing] = {}  # by process: a fork takes no caller along

    def enqueue(self, topic: str, payload: bytes, **options: Unpack[EnqueueOptions]) -> int:
        """Enqueue one message and return its id, once the broker has made it durable."""
        item = wire.EnqueueItem(topic=topic, payload=payload, **options)
        if self._batch:
            return self._shared().enqueue(item)
        return self._call(protocol.enqueue([item], safe_retries=self._safe_retries))[0]

    def enqueue_many(self, items: Sequence[wire.EnqueueItem], *, durability: m.Durability = "wal") -> list[int]:
        """Enqueue the items and return their ids in order. They are sent 1,000 or 7 MiB at a time: when a later request
        is refused, the earlier ones stand.

        `durability`: `wal` waits until they are on the broker's disk and in Redis, `postgres` until they are committed
        in PostgreSQL; such a request is not shared.
        """
        if self._batch and len(items) == 1 and durability == "wal":
            return [self._shared().enqueue(items[0])]
        calls = (protocol.enqueue(batch, safe_retries=self._safe_retries, durability=durability) for batch in protocol.batches(items))
        return [id for call in calls for id in self._call(call)]

    def fetch(
        self,
        topics: str | Sequence[str],
        *,
        namespace: str = m.DEFAULT_NAMESPACE,
        limit: int = 10,
        wait: float = 0.0,
        lease: float | None = None,
    ) -> list[wire.Message]:
        """Lease up to `limit` messages, least key first; wait up to `wait` seconds for one."""
        return self._call(protocol.fetch(topics, namespace, limit, wait, lease))

    def poll(self, request: wire.Poll) -> wire.Polled:
        """Settle and fetch in one round trip. It is never sent twice."""
        return self._call(protocol.poll(request))

    def ack(self, items: Sequence[Settled]) -> list[wire.Verdict]:
        """Say that these are done. It takes messages as fetched, or `wire.SettleItem`s."""
        return self._chunked(protocol.ack_items(items), lambda part: protocol.settle("/ack", part))

    def nack(self, items: Sequence[Settled], *, error: str | None = None, retry_after: float | None = None) -> list[wire.Verdict]:
        """Say that these have failed: they are retried after the backoff or `retry_after` seconds, dead
        after the last retry.
        """
        return self._chunked(protocol.nack_items(items, error, retry_after), lambda part: protocol.settle("/nack", part))

    def extend(self, items: Sequence[Extended], *, lease: float | None = None) -> list[wire.Verdict]:
        """Renew leases: each ends `lease` seconds from now (None: the message's own length)."""
        return self._chunked(protocol.extend_items(items, lease), protocol.extend)

    def dead_letters(self, topic: str, *, namespace: str = m.DEFAULT_NAMESPACE, limit: int = 100, after: int = 0) -> list[wire.DeadItem]:
        """Returns the dead letters by id, from the first above `after`."""
        return self._call(protocol.dead_letters(topic, namespace, limit, after))

    def delete_dead(self, topic: str, ids: Sequence[int], *, namespace: str = m.DEFAULT_NAMESPACE) -> list[wire.Verdict]:
        return self._chunked(ids, lambda part: protocol.delete_dead(topic, namespace, part))

    def topics(self, namespace: str | None = None) -> list[wire.Topic]:
        """Returns all topics. Raises Unavailable while a shard gives no answer: what the others have is not all."""
        return self._call(protocol.topics(namespace))

    def workers(self, namespace: str | None = None) -> list[wire.Worker]:
        """Returns the workers heard of in the last 10 s, and what each runs."""
        return self._call(protocol.workers(namespace))

    def tell(self, worker: wire.Worker) -> None:
        """Tell the broker of a worker; to be repeated every few seconds."""
        self._call(protocol.tell(worker))

    def message(self, id: int) -> wire.Status | None:
        """Returns what the broker knows of it; None when it is gone (acked, for example) or never was."""
        try:
            return self._call(protocol.message(id))
        except NotFound:
            return None

    def cancel(self, id: int) -> wire.Cancel:
        """Take away what waits (`cancelled`), have its worker stop what runs (`cancelling`); `gone`: it has
        ended, or never was.
        """
        return self._call(protocol.cancel(id))

    def cancelled(self, namespaces: Sequence[str], *, since: str | None = None, wait: float = 0.0) -> wire.Cancelled:
        """Returns ids of running messages whose cancellation was asked for after `since` (of the last answer); waits up
        to `wait` seconds for one.
        """
        return self._call(protocol.cancelled(namespaces, since, wait))

    def result(
        self, id: int, *, topic: str | None = None, namespace: str = m.DEFAULT_NAMESPACE, wait: float = 0.0, within: float = math.inf
    ) -> bytes:
        """Returns what the message left when it was done; waits for it up to `wait` seconds (60). `topic`: spares the
        broker a search. `within`: seconds for all of it, where the broker does not answer.

        Raises Pending while there is none, JobFailed for a dead letter, NotFound where it left none
        or that has expired.
        """
        return self._call(protocol.result(id, topic, namespace, wait, within))

    def schedules(self, namespace: str = m.DEFAULT_NAMESPACE) -> list[wire.Schedule]:
        """Returns the schedules by name, without their payloads."""
        found: list[wire.Schedule] = []
        while page := self._call(protocol.schedules(namespace, found[-1].name if found else "", m.BATCH_MAX)):
            found += page
            if len(page) < m.BATCH_MAX:
                break
        return found

    def schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule | None:
        """Returns the schedule; None where there is none of that name."""
        try:
            return self._call(protocol.schedule(name, namespace))
        except NotFound:
            return None

    def put_schedule(self, name: str, item: wire.ScheduleItem) -> wire.Schedule:
        """Make or replace the schedule."""
        return self._call(protocol.put_schedule(name, item))

    def pause_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule:
        """Pause the schedule. Raises NotFound, as the next two do."""
        return self._call(protocol.pause_schedule(name, namespace))

    def resume_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> wire.Schedule:
        """Go on with the next tick from now."""
        return self._call(protocol.resume_schedule(name, namespace))

    def run_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> int:
        """Enqueue one message now, beside its ticks, and return its id."""
        return self._call(protocol.run_schedule(name, namespace, safe_retries=self._safe_retries))

    def delete_schedule(self, name: str, *, namespace: str = m.DEFAULT_NAMESPACE) -> bool:
        """Delete the schedule. Was it there?"""
        return self._call(protocol.delete_schedule(name, namespace))

    def health(self) -> bool:
        """Does a broker answer there, and call itself well?"""
        try:
            return self._call(protocol.health())
        except MQueueError:
            return False

    def ready(self) -> wire.Ready:
        """Returns whether every shard would serve an enqueue and a fetch, and how each part is."""
        return self._call(protocol.ready())

    def close(self) -> None:
        """Close the connections; with `batch`, once all who are enqueueing have their answers."""
        if self._batch:
            self._shared().close()
        self._closed = True
        self._pool.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _chunked(self, items: Sequence[T], build: Callable[[Sequence[T]], Call[list[wire.Verdict]]]) -> list[wire.Verdict]:
        return [verdict for part in protocol.chunks(items) for verdict in self._call(build(part))]

    def _shared(self) -> Sharing:
        here = os.getpid()
        return self._sharing.get(here) or self._sharing.setdefault(here, Sharing(self._call, safe_retries=self._safe_retries))

    def _call(self, call: Call[T]) -> T:
        failed, left = 0, protocol.within_s(call, self._timeout)
        until = time.monotonic() + left
        while True:
            if self._closed:
                raise Unavailable(protocol.CLOSED)
            try:
                return self._send(call, left)
            except MQueueError as error:
                failed += 1
                pause = retry.pause_s(failed, error, self._jitter()) if self._retries and call.repeatable else None
                if pause is None or time.monotonic() + pause >= until:
                    raise
            self._sleep(pause)
            left = until - time.monotonic()

    def _send(self, call: Call[T], left: float) -> T:
        if self._owner != os.getpid():  # a forked child must not share the parent's sockets
            parents, self._pool = self._pool, self._open()
            self._owner = os.getpid()  # in this order: another thread goes by the owner
            parents.close()  # here alone
        try:
            reply = self._pool.send(call, max(left, protocol.LEAST_S))
        except OSError as error:
            raise protocol.unreachable(self.url, error) from error
        return protocol.answer(call, reply.status, reply.headers, reply.body)

    def _open(self) -> "lean_sync.Pool | library_sync.Pool":
        if transport() == "library":
            from mqueue.client import library_sync

            return library_sync.Pool(self.url, self._token, self._connections, self._tls)
        return lean_sync.Pool(self.url, self._token, self._connections, self._tls)
