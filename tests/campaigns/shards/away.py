"""One shard of two is away: the other one serves as before. Its stores are stopped amid the load, and it comes back.

    python -m tests.campaigns.shards.away --seconds 60 --rate 100

Both shards have so many messages a second, one a request, and the pollers name the topics of both. First both are well,
then one is away for as long. Judged is the other one's: what is acked, how long an enqueue takes, how long a message
waits for its delivery; and that no lease is lost.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mqueue import wire
from mqueue.broker.embedded import EmbeddedStores, StoreUrls
from mqueue.broker.slots import slot
from mqueue.client import AsyncClient
from mqueue.errors import MQueueError
from mqueue.message import TopicName
from tests.processes.broker import Broker
from tests.processes.stores import environment
from tests.waiting import until

from ..campaign import finish, options, table

TOPICS = [next(f"t{n}" for n in range(100) if slot(TopicName("default", f"t{n}")) % 2 == shard) for shard in (0, 1)]
HERE, AWAY = TOPICS
POLLERS = 4
LEASE_S = 2.0
WARM_S = 2.0
AWAY_AT_ONCE = 8  # enqueues to the shard that is away: each waits until it is told so
BACK_S = 60.0
THROUGHPUT, P99 = 0.9, 2.0


@dataclass
class Phase:
    """`enqueues_s`, `deliveries_s`: how long each took. `lost`: second deliveries, and acks that were refused."""

    seconds: float = 0.0
    acked: int = 0
    lost: int = 0
    failed: int = 0
    enqueues_s: list[float] = field(default_factory=list)
    deliveries_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.acked / self.seconds if self.seconds else 0.0


@dataclass
class Found:
    well: Phase
    away: Phase
    back: bool = False

    def good(self, throughput: float = THROUGHPUT, p99: float = P99, least_s: float = 0.0) -> bool:
        """`least_s`: no p99 below this is too long."""
        times = ((self.well.enqueues_s, self.away.enqueues_s), (self.well.deliveries_s, self.away.deliveries_s))
        quick = all(p99_s(away) <= max(p99 * p99_s(well), least_s) for well, away in times)
        return self.back and quick and self.away.rate >= throughput * self.well.rate and not self.away.lost and not self.away.failed


def p99_s(times: list[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))] if times else float("inf")


class Load:
    """Producers and pollers; what they see counts in `phase`."""

    def __init__(self, client: AsyncClient, rate: float) -> None:
        self.phase = Phase()
        self._client = client
        self._rate = rate
        self._sent: dict[int, float] = {}
        self._away = asyncio.Semaphore(AWAY_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        for work in (self._produce(), *(self._poll() for _ in range(POLLERS))):
            self._tasks.add(asyncio.create_task(work))

    @asynccontextmanager
    async def seen_in(self, phase: Phase) -> AsyncIterator[None]:
        """Counts in this phase meanwhile."""
        self.phase, began = phase, time.monotonic()
        yield
        self.phase, phase.seconds = Phase(), time.monotonic() - began

    async def stop(self) -> None:
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _produce(self) -> None:
        due = time.monotonic()
        while True:
            due += 1 / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for work in (self._enqueue(), self._enqueue_away()):
                task = asyncio.create_task(work)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _enqueue(self) -> None:
        phase, began = self.phase, time.monotonic()
        try:
            await self._client.enqueue_many([wire.EnqueueItem(topic=HERE, payload=b"%r" % began, lease=LEASE_S)])
        except MQueueError:
            phase.failed += 1
        else:
            phase.enqueues_s.append(time.monotonic() - began)

    async def _enqueue_away(self) -> None:
        if self._away.locked():
            return
        async with self._away:
            try:
                await self._client.enqueue_many([wire.EnqueueItem(topic=AWAY, payload=b"x", lease=LEASE_S)])
            except MQueueError:
                return  # it is away

    async def _poll(self) -> None:
        while True:
            try:
                messages = await self._client.fetch(TOPICS, limit=100, wait=5.0)
            except MQueueError:  # nothing was there before the wait ended
                await asyncio.sleep(0.05)  # it may have been said at once
                continue
            now = time.monotonic()
            ours = [message for message in messages if message.topic == HERE]
            for message in ours:
                self.phase.deliveries_s.append(now - float(message.payload))
                self.phase.lost += message.attempt > 1
            others = [message for message in messages if message.topic == AWAY]
            await asyncio.gather(self._ack(ours, judged=True), self._ack(others, judged=False))

    async def _ack(self, messages: list[wire.Message], *, judged: bool) -> None:
        if not messages:
            return
        try:
            verdicts = await self._client.ack(messages)
        except MQueueError:
            self.phase.failed += judged
            return
        if judged:
            self.phase.acked += sum(verdict.status == "ok" for verdict in verdicts)
            self.phase.lost += sum(verdict.status == "stale" for verdict in verdicts)


async def run(seconds: float, rate: float) -> Found:
    found = Found(Phase(), Phase())
    async with _stores() as (stores, urls):
        broker = Broker(env=environment(urls))
        try:
            await asyncio.to_thread(broker.start)
            async with AsyncClient(broker.url, broker.token, retries=False, timeout=30.0) as client:
                load = Load(client, rate)
                load.start()
                try:
                    await asyncio.sleep(WARM_S)  # the topics are opened
                    async with load.seen_in(found.well):
                        await asyncio.sleep(seconds)  # the load goes on
                    async with AsyncExitStack() as stopped, load.seen_in(found.away):
                        await stopped.enter_async_context(stores.without("valkey"))
                        await stopped.enter_async_context(stores.without("postgresql"))
                        await asyncio.sleep(seconds)  # the load goes on
                    await until(lambda: _is_served(client), "the shard is back", BACK_S)
                    found.back = True
                finally:
                    await load.stop()
        finally:
            await asyncio.to_thread(broker.close)
    return found


async def _is_served(client: AsyncClient) -> bool:
    try:
        return bool(await client.enqueue_many([wire.EnqueueItem(topic=AWAY, payload=b"x")]))
    except MQueueError:
        return False


@asynccontextmanager
async def _stores() -> "AsyncIterator[tuple[EmbeddedStores, StoreUrls]]":
    """Each shard has a PostgreSQL and a Valkey of its own, under one password: those of the second are given."""
    with tempfile.TemporaryDirectory(prefix="mq-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        folders = [folder / "a", folder / "b"]
        for each in folders:
            each.mkdir(mode=0o711)
        first, second = (EmbeddedStores(each, 1) for each in folders)
        try:
            one = await first.start()
            shutil.copy(folders[0] / "credentials.json", folders[1])
            two = await second.start()
            yield second, StoreUrls(one.database_urls + two.database_urls, one.redis_addrs + two.redis_addrs, one.redis_password)
        finally:
            await second.stop()
            await first.stop()


def report(found: Found) -> list[str]:
    lines = []
    for name, phase in (("both are well", found.well), ("one is away", found.away)):
        rows = {
            "acked a second": f"{phase.rate:.1f}",
            "enqueue, p99, ms": f"{1000 * p99_s(phase.enqueues_s):.1f}",
            "delivery, p99, ms": f"{1000 * p99_s(phase.deliveries_s):.1f}",
            "leases lost": phase.lost,
            "calls failed": phase.failed,
        }
        lines += [f"{name}:", *table(rows, "  ")]
    return lines


def main() -> int:
    given = options(__doc__, seconds=60.0, rate=100.0)
    found = asyncio.run(run(given.seconds, given.rate))
    return finish(found.good(), report(found), f"throughput >= {THROUGHPUT} x, p99 <= {P99:g} x, no lease lost, no call failed, it is back")


if __name__ == "__main__":
    raise SystemExit(main())
