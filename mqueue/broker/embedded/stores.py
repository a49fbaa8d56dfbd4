"""Both embedded stores are started together, watched while the broker runs, and stopped with it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from mqueue.broker.embedded.ground import CREDENTIALS_FILE, EmbeddedError, Ground, take
from mqueue.broker.embedded.postgres import PostgreSQL, database_urls
from mqueue.broker.embedded.valkey import Valkey, address

WATCH_S = 0.2
STEADY_S = 60.0
DELAY_MAX_S = 30.0

log = structlog.get_logger(__name__)


class Store(Protocol):
    name: str

    @property
    def pid(self) -> int | None: ...
    def alive(self) -> bool: ...
    def trim_log(self) -> None: ...
    async def start(self) -> bool: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrls:
    """How to reach the stores. It has no repr: there are passwords inside."""

    database_urls: tuple[str, ...]  # postgresql://mqueue:PW@/mqueue_0?host=/dir, one per shard
    redis_addrs: tuple[str, ...]  # unix:///dir/sock
    redis_password: str


def store_urls(data_dir: Path) -> StoreUrls:
    """Returns the URLs of the stores that a broker runs on this data dir. Raises EmbeddedError where none answer."""
    urls = database_urls(data_dir)
    try:
        password = json.loads((data_dir / CREDENTIALS_FILE).read_text())["valkey"]
    except (OSError, ValueError, KeyError) as error:
        raise EmbeddedError(f"{data_dir / CREDENTIALS_FILE} cannot be read: {error}") from error
    return StoreUrls(urls, (address(data_dir),), password)


def restart_delay(failures: int) -> float:
    """Returns the seconds to wait before a start, after `failures` short lives or failed starts in a row. The first
    start is at once.
    """
    return 0.0 if failures == 0 else min(0.5 * 2 ** min(failures - 1, 10), DELAY_MAX_S)


class EmbeddedStores:
    """The two stores of a data dir. `steady_s`: a store that lived so long starts again without delay. `redis_max`: the
    bytes that all shards may hold in Redis; 0: it has no limit.
    """

    def __init__(self, data_dir: Path, shards: int, *, steady_s: float = STEADY_S, redis_max: int = 0) -> None:
        self._data_dir = data_dir
        self._steady_s = steady_s
        self._shards = shards
        self._redis_max = redis_max
        self._ground: Ground | None = None
        self._stores: list[Store] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._held: set[str] = set()

    async def start(self) -> StoreUrls:
        """Lock the data dir; start or take over both stores; watch them from then on.

        Raises EmbeddedError or PathError, and then leaves nothing running.
        """
        self._ground = take(self._data_dir)
        try:
            postgres, valkey = PostgreSQL(self._ground, self._shards), Valkey(self._ground, self._redis_max)
            self._stores = [postgres, valkey]
            await self._start_all()
        except BaseException:
            await self.stop()
            raise
        self._watchers = [asyncio.create_task(self._watch(store), name=f"watch {store.name}") for store in self._stores]
        return StoreUrls(postgres.urls, (valkey.address,), self._ground.credentials.valkey)

    def pids(self) -> dict[str, int]:
        """Returns the process ids of the stores that run, by name."""
        return {store.name: pid for store in self._stores if (pid := store.pid) is not None}

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Stops the store of this name for as long as the block lasts; at its end the store is started, and ready.
        Raises EmbeddedError.
        """
        [store] = [store for store in self._stores if store.name == name]
        self._held.add(name)
        try:
            await store.stop()
            yield
            await self._start(store)
        finally:
            self._held.discard(name)

    async def stop(self) -> None:
        """Stop both, each within a bounded time, and free the data dir. Safe to call twice."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []
        try:
            results = await asyncio.gather(*(store.stop() for store in self._stores), return_exceptions=True)
            for store, result in zip(self._stores, results, strict=True):
                if isinstance(result, BaseException):
                    log.error("embedded store does not stop", store=store.name, pid=store.pid, error=str(result))
        finally:
            self._stores = []
            if self._ground is not None:
                self._ground.release()
                self._ground = None

    async def _start_all(self) -> None:
        """Starts both side by side; waits for both even when one fails, so that the failed start can stop both."""
        for result in await asyncio.gather(*(self._start(store) for store in self._stores), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _start(self, store: Store) -> None:
        began = time.monotonic()
        taken_over = await store.start()
        seconds = round(time.monotonic() - began, 2)
        log.info("embedded store ready", store=store.name, pid=store.pid, taken_over=taken_over, seconds=seconds)

    async def _watch(self, store: Store) -> None:
        """Bring `store` back whenever it dies, for as long as the broker runs."""
        failures, ready_at = 0, time.monotonic()
        while True:
            await asyncio.sleep(WATCH_S)
            if store.alive() or store.name in self._held:
                store.trim_log()
                continue
            if time.monotonic() - ready_at > self._steady_s:
                failures = 0
            delay = restart_delay(failures)
            log.error("embedded store died, starting it again", store=store.name, pid=store.pid, delay_s=delay)
            await asyncio.sleep(delay)
            failures += 1
            try:
                await self._start(store)
            except (EmbeddedError, OSError) as error:
                log.error("embedded store does not start", store=store.name, error=str(error))
            ready_at = time.monotonic()
