"""How fast is an installation that runs? `mqueue bench` asks its broker over the HTTP API, as any client would.

It uses a topic of its own, which must be empty before, and is empty again afterwards, however it ends: what was
enqueued is fetched and acked. What it cannot take back, since it was killed, expires within an hour.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import MQueueError

TOPIC = "mqueue-bench"
PAYLOAD_BYTES = 100
AT_ONCE = 16
PAGE = 1_000
PACE = 100  # a second
PHASES = 5
TICK_S = 0.1
LEASE_S = 10.0  # what a broken call leaves leased comes back after it
TTL_S = 3_600.0
WAIT_S = 0.5
LATE_S = 5.0  # for the last messages of the latency
CLEAN_S = 60.0

Progress = Callable[[str, float], None]  # what is measured, and the seconds since the beginning
Phase = Callable[[float], Awaitable[float]]  # until when, and what it measured


class BenchError(MQueueError):
    """The topic is no place to measure in; `detail` says why."""

    code, title = "bench", "This cannot be measured"


@dataclass(frozen=True, slots=True)
class Figure:
    """`unit` is of `value`: "/s" or "ms"."""

    what: str
    value: float
    unit: str


class Bench:
    """It measures for `seconds` in each of its phases."""

    def __init__(self, client: AsyncClient, namespace: str, topic: str, seconds: float, progress: Progress) -> None:
        self._client = client
        self._namespace, self._topic = namespace, topic
        self._seconds, self._progress = seconds, progress
        self._phases = 0
        self._held: list[wire.Message] = []  # fetched, and not yet acked
        self._delays: list[float] = []  # seconds

    async def run(self) -> list[Figure]:
        """Raises BenchError, or what the broker refuses. Cancelled, it cleans up first."""
        if held := await self._waiting():
            raise BenchError(
                f"the topic {self._topic} is not empty ({held:,} there), and this would take what it holds: name another "
                f"by --topic (what a bench that was killed left behind expires within an hour)"
            )
        try:
            figures = [
                Figure("enqueue, one call at a time", await self._timed("one at a time", self._one), "/s"),
                Figure(f"enqueue, {AT_ONCE} at once", await self._timed(f"{AT_ONCE} at once", self._many), "/s"),
                Figure(f"enqueue, {PAGE:,} a call", await self._timed("bulk", self._bulk), "/s"),
                Figure("fetch and ack, one consumer", await self._timed("drain", self._drain), "/s"),
            ]
            await self._clean()
            await self._timed("latency", self._latency)
        finally:
            self._progress("cleaning up", PHASES * self._seconds)
            await self._clean()
        delays = [1_000 * delay for delay in sorted(self._delays)]
        return [*figures, *(Figure(f"enqueue to delivery, p{share}", _percentile(delays, share), "ms") for share in (50, 99))]

    async def _timed(self, what: str, phase: Phase) -> float:
        began = time.perf_counter()
        done = self._phases * self._seconds
        self._phases += 1

        async def tick() -> None:
            while True:
                self._progress(what, done + min(self._seconds, time.perf_counter() - began))
                await asyncio.sleep(TICK_S)

        ticking = asyncio.create_task(tick())
        try:
            return await phase(began + self._seconds)
        finally:
            ticking.cancel()

    async def _one(self, until: float) -> float:
        began, sent = time.perf_counter(), 0
        while time.perf_counter() < until:
            await self._client.enqueue_many([self._item()])
            sent += 1
        return sent / (time.perf_counter() - began)

    async def _many(self, until: float) -> float:
        async with _together() as group:
            producers = [group.create_task(self._one(until)) for _ in range(AT_ONCE)]
        return sum(producer.result() for producer in producers)

    async def _bulk(self, until: float) -> float:
        began, sent = time.perf_counter(), 0
        while time.perf_counter() < until:
            sent += len(await self._client.enqueue_many([self._item()] * PAGE))
        return sent / (time.perf_counter() - began)

    async def _drain(self, until: float) -> float:
        began, taken = time.perf_counter(), 0
        while time.perf_counter() < until and (page := await self._poll(0.0)):
            taken += len(page)
        return taken / (time.perf_counter() - began)

    async def _latency(self, until: float) -> float:
        async with _together() as group:
            sending = group.create_task(self._paced(until))
            while not sending.done() or (len(self._delays) < sending.result() and time.perf_counter() < until + LATE_S):
                page = await self._poll(WAIT_S)
                now = time.monotonic()
                self._delays += [now - float(message.payload.split()[0]) for message in page]
        return _percentile(sorted(self._delays), 50)

    async def _paced(self, until: float) -> int:
        began, sent = time.perf_counter(), 0
        while (now := time.perf_counter()) < until or not sent:
            await self._client.enqueue_many([self._item()])
            sent += 1
            await asyncio.sleep(max(0.0, began + sent / PACE - now))
        return sent

    def _item(self) -> wire.EnqueueItem:
        payload = f"{time.monotonic():.9f} ".encode().ljust(PAYLOAD_BYTES, b"x")
        return wire.EnqueueItem(namespace=self._namespace, topic=self._topic, payload=payload, ttl=TTL_S)

    async def _poll(self, wait: float) -> list[wire.Message]:
        """Acks what was fetched before, and fetches the next page."""
        settle = [
            wire.PollSettle(kind="ack", id=held.id, receipt=held.receipt, namespace=self._namespace, topic=self._topic) for held in self._held
        ]
        polled = await self._client.poll(
            wire.Poll(namespace=self._namespace, topics=[self._topic], limit=PAGE, wait=wait, lease=LEASE_S, settle=settle)
        )
        self._held = polled.messages
        return self._held

    async def _clean(self) -> None:
        """Takes all that is left. What a broken call has fetched comes back when its lease has ended."""
        deadline = time.perf_counter() + CLEAN_S
        while await self._poll(WAIT_S) or await self._waiting():
            if time.perf_counter() > deadline:
                raise BenchError(f"the topic {self._topic} is not empty after {CLEAN_S:g} s; what is left there expires within an hour")

    async def _waiting(self) -> int:
        """Returns how many messages the topic holds, in whatever state."""
        found = [topic for topic in await self._client.topics(self._namespace) if topic.topic == self._topic]
        return sum(topic.ready + topic.delayed + topic.leased + topic.waiting for topic in found)


async def measure(url: str | None, token: str | None, namespace: str, topic: str, seconds: float, progress: Progress) -> list[Figure]:
    async with AsyncClient(url, token) as client:
        return await Bench(client, namespace, topic, seconds, progress).run()


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Of what several tasks raise, the first one counts."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


def _percentile(ordered: Sequence[float], share: int) -> float:
    """Returns the value that `share` percent do not exceed; NaN of none."""
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)] if ordered else math.nan
