"""Who works, and at what: workers tell any broker, which writes all it heard in one statement; any broker shows it.

The table is in shard 0's database, whatever the topics: it is for people. Where PostgreSQL is away, what was told last is written when it is
back, if it is not too old by then.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from mqueue import wire
from mqueue.broker.faults import Fault, unavailable
from mqueue.broker.store.shard import ShardStore
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.message import WORKER_UNHEARD_S, WORKERS_MAX, TopicName, WorkerKey, WorkerReport

WRITE_S = 0.5

_read = msgspec.json.Decoder(wire.Worker).decode


class Workers:
    def __init__(self, store: ShardStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._heard: dict[WorkerKey, float] = {}  # monotonic; of the last seconds
        self._unwritten: dict[WorkerKey, WorkerReport] = {}
        self._gone: set[WorkerKey] = set()
        self._wake = asyncio.Event()

    async def hear(self, report: WorkerReport, *, stopped: bool = False) -> None:
        """It is written soon; nobody waits for that. Raises Unavailable when too many tell."""
        key = report.key
        if key not in self._heard and len(self._heard) >= WORKERS_MAX:
            self._forget()
            if len(self._heard) >= WORKERS_MAX:
                raise Unavailable(f"more than {WORKERS_MAX} workers", retry_after=WORKER_UNHEARD_S)
        self._heard[key] = self._clock.monotonic()
        if stopped:
            self._unwritten.pop(key, None)
            self._gone.add(key)
        else:
            self._gone.discard(key)
            self._unwritten[key] = report
        self._wake.set()

    async def workers(self, namespaces: Sequence[str] | None) -> list[tuple[str, int]]:
        """What each told last, and when (µs), by name: of those with a topic in these namespaces (None: of all)."""
        try:
            return await self._store.workers(namespaces)
        except Fault as fault:
            raise unavailable(fault) from fault

    async def progress(self, id: int, name: TopicName) -> tuple[float | None, str | None]:
        """Of a message that runs, as far as it is known. A sleeper may tell of an earlier attempt, and a worker of another's id."""
        try:
            reports = await self._store.progress_of(id, name.namespace)
            told = [run for text in reports for run in _read(text).running if (run.id, run.namespace, run.topic) == (id, *name)]
        except Fault:  # the message itself may be in Redis
            return None, None
        latest = max(told, key=lambda run: run.attempt, default=None)
        return (latest.progress, latest.note) if latest is not None else (None, None)

    async def run(self) -> None:
        """One write at a time, WRITE_S apart."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._forget()
            try:
                await self._write()
            except Fault:  # how PostgreSQL is, others say
                self._wake.set()
            await asyncio.sleep(WRITE_S)

    async def _write(self) -> None:
        if self._unwritten:
            reports, self._unwritten = self._unwritten, {}
            try:
                await self._store.put_workers([reports[key] for key in sorted(reports)])
            except BaseException:
                self._unwritten = reports | self._unwritten
                for key in self._gone:
                    self._unwritten.pop(key, None)
                raise
        if self._gone:
            gone = set(self._gone)
            await self._store.drop_workers(gone)
            self._gone -= gone

    def _forget(self) -> None:
        since = self._clock.monotonic() - WORKER_UNHEARD_S
        for key in [key for key, at in self._heard.items() if at < since]:
            del self._heard[key]
            self._unwritten.pop(key, None)
            self._gone.discard(key)
