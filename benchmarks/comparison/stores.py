"""Each turn has a fresh store: PostgreSQL or Valkey, embedded as a broker has them, or a broker with both.

Valkey gets what a Redis of production has: an append-only file, fsynced every second. Its settings for a broker (no
file, no small lists) are taken back.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from benchmarks.comparison.environments import Interpreter
from benchmarks.comparison.processes import Process
from benchmarks.comparison.systems import Store
from mqueue.broker.embedded.ground import take
from mqueue.broker.embedded.postgres import PostgreSQL
from mqueue.broker.embedded.valkey import Valkey
from mqueue.paths import read_endpoint

READY = re.compile(r"mqueue broker ready url=(\S+) ")
AS_IN_PRODUCTION = {"appendonly": "yes", "appendfsync": "everysec", "zset-max-listpack-entries": "128", "requirepass": ""}
BROKER_STOP_S = 35.0


@dataclass(frozen=True, slots=True)
class Server:
    """`pid` is of its first process, `inside` what the producer and the workers find in their environment."""

    pid: int
    inside: dict[str, str] = field(repr=False)


@contextmanager
def serving(store: Store, interpreter: Interpreter, folder: Path, path: dict[str, str]) -> Iterator[Server]:
    if store == "broker":
        with _broker(interpreter, folder, path) as server:
            yield server
    else:
        with (_redis if store == "redis" else _postgresql)(folder) as server:
            yield server


@contextmanager
def _broker(interpreter: Interpreter, folder: Path, path: dict[str, str]) -> Iterator[Server]:
    data_dir = folder / "data"
    options = ["--port", "0", "--metrics-port", "0", "--data-dir", str(data_dir)]
    broker = Process([str(interpreter.python), "-m", "mqueue.cli", "broker", *options], folder, folder / "broker.log", path)
    try:
        found = READY.search(broker.line())
        endpoint = read_endpoint(data_dir)
        if found is None or endpoint is None:
            raise RuntimeError("the broker did not say where it is")
        yield Server(broker.pid, {"BENCH_URL": found[1], "MQUEUE_URL": found[1], "MQUEUE_TOKEN": endpoint.token or ""})
    finally:
        broker.stop(BROKER_STOP_S)


@contextmanager
def _postgresql(folder: Path) -> Iterator[Server]:
    ground = take(folder / "data")
    store = PostgreSQL(ground, 1)
    try:
        asyncio.run(store.start())
        yield Server(store.pid or 0, {"BENCH_URL": store.urls[0]})
    finally:
        asyncio.run(store.stop())
        ground.release()


@contextmanager
def _redis(folder: Path) -> Iterator[Server]:
    ground = take(folder / "data")
    store = Valkey(ground)
    try:
        asyncio.run(store.start())
        with redis.Redis.from_url(f"{store.address}?password={ground.credentials.valkey}") as client:
            for name, value in AS_IN_PRODUCTION.items():
                client.config_set(name, value)
        yield Server(store.pid or 0, {"BENCH_URL": f"{store.address}?db=0"})
    finally:
        asyncio.run(store.stop())
        ground.release()
