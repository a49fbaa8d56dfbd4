"""Workers tell any broker at what they work; it writes all it heard in one statement (of very much, in some), and any
broker shows it.

The table is in shard 0's database, whatever the topics: it is for people. Where PostgreSQL is away, what was told last
is written when it is back, if it is not too old by then.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from mqueue import wire
from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.store.shard import ShardStore
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.message import BODY_MAX, WORKER_UNHEARD_S, WORKERS_MAX, TopicName, WorkerKey, WorkerReport

WRITE_S = 0.5
UNWRITTEN_MAX = 64 * 1024 * 1024  # letters of the reports that wait

_read = msgspec.json.Decoder(wire.Worker).decode


class Workers:
    def __init__(self, store: ShardStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._heard: dict[WorkerKey, float] = {}  # monotonic; of the last seconds
        self._unwritten: dict[WorkerKey, WorkerReport] = {}
        self._size = 0  # letters of those
        self._gone: set[WorkerKey] = set()
        self._wake = asyncio.Event()

    async def hear(self, report: WorkerReport, *, stopped: bool = False) -> None:
        """Takes what a worker tells. It is written soon; nobody waits for that. Raises Unavailable when too
        many tell.
        """
        key = report.key
        if key not in self._heard and len(self._heard) >= WORKERS_MAX:
            self._forget()
            if len(self._heard) >= WORKERS_MAX:
                raise Unavailable(f"more than {WORKERS_MAX} workers", retry_after=WORKER_UNHEARD_S)
        before = self._unwritten.get(key)
        if not stopped and self._size + len(report.text) - (0 if before is None else len(before.text)) > UNWRITTEN_MAX:
            raise Unavailable("too many reports wait for PostgreSQL", retry_after=WORKER_UNHEARD_S)
        self._heard[key] = self._clock.monotonic()
        self._drop(key)
        if stopped:
            self._gone.add(key)
        else:
            self._gone.discard(key)
            self._unwritten[key] = report
            self._size += len(report.text)
        self._wake.set()

    async def workers(self, namespaces: Sequence[str] | None) -> list[tuple[str, int]]:
        """What each told last, and when (µs), by name: of those with a topic in these namespaces (None: of all)."""
        try:
            return await self._store.workers(namespaces)
        except Fault as fault:
            raise unavailable(fault) from fault

    async def progress(self, id: int, name: TopicName) -> tuple[float | None, str | None]:
        """Returns the progress of a message that runs, as far as it is known. A sleeper may tell of an earlier attempt,
        and a worker of another's id.
        """
        try:
            reports = await self._store.progress_of(id, name.namespace)
            told = [run for text in reports for run in _read(text).running if (run.id, run.namespace, run.topic) == (id, *name)]
        except Fault:  # the message itself may be in Redis
            return None, None
        latest = max(told, key=lambda run: run.attempt, default=None)
        return (latest.progress, latest.note) if latest is not None else (None, None)

    async def run(self) -> None:
        """Makes one write at a time, WRITE_S apart."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._forget()
            try:
                await self._write()
            except Fault:  # other parts tell how PostgreSQL is
                self._wake.set()
            await asyncio.sleep(WRITE_S)

    async def _write(self) -> None:
        for page in self._pages():
            await self._store.put_workers(page)
            for report in page:
                if self._unwritten.get(report.key) is report:  # it has told nothing new meanwhile
                    self._drop(report.key)
        if self._gone:
            gone = set(self._gone)
            await self._store.drop_workers(gone)
            self._gone -= gone

    def _pages(self) -> list[list[WorkerReport]]:
        """Yields what waits, in the order of its keys (two brokers never deadlock), each page as much as one statement
        takes.
        """
        pages: list[list[WorkerReport]] = []
        size = BODY_MAX
        for _, report in sorted(self._unwritten.items()):
            size += len(report.text)
            if size > BODY_MAX:
                pages.append([])
                size = len(report.text)
            pages[-1].append(report)
        return pages

    def _drop(self, key: WorkerKey) -> None:
        if (report := self._unwritten.pop(key, None)) is not None:
            self._size -= len(report.text)

    def _forget(self) -> None:
        since = self._clock.monotonic() - WORKER_UNHEARD_S
        for key in [key for key, at in self._heard.items() if at < since]:
            del self._heard[key]
            self._drop(key)
            self._gone.discard(key)
