"""A run happens on a stage: stores of its own, brokers as processes, and between them proxies
that can cut and stall.
"""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import LiteralString, Self

import aiohttp
import redis.asyncio as aioredis
from psycopg import AsyncConnection, sql

from mqueue import tokens
from mqueue.broker.embedded import EmbeddedStores, StoreUrls
from mqueue.broker.store.verify import ledgers
from mqueue.clock import SystemClock
from mqueue.errors import MQueueError
from mqueue.launch import BROKER_STOP_S, READY, SETTINGS, START_S
from mqueue.torture.proxy import Proxy

FORGET = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"
SETTLE_S = 60.0  # after a fault everything must serve again within it


class TortureError(MQueueError):
    """The run itself cannot go on; `detail` says why."""

    code, title = "torture", "The run failed"


class Broker:
    """It is one `mqueue broker` on the stage's stores, at the same URL whenever it runs."""

    def __init__(self, number: int, folder: Path, settings: dict[str, str], postgres: Proxy, redis: Proxy) -> None:
        self.number = number
        self.postgres, self.redis = postgres, redis
        self._folder = folder
        self._settings = settings
        self._ports = (_free_port(), _free_port())
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.metrics_url = f"http://127.0.0.1:{self._ports[1]}/metrics"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        return self._folder / "broker.log"

    @property
    def up(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, failpoints: str = "") -> None:
        """Returns when it is ready, or when it has ended because of a failpoint."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)} | self._settings
        if failpoints:
            environment["MQUEUE_FAILPOINTS"] = failpoints
        port, metrics_port = map(str, self._ports)
        command = [sys.executable, "-m", "mqueue.cli", "broker", "--port", port, "--metrics-port", metrics_port]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, "--data-dir", str(self._folder / "data"), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=log, cwd=self._folder, env=environment, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                while line := await self._process.stdout.readline():
                    if READY.match(line):
                        return
        except TimeoutError:
            await self.kill()
            raise TortureError(f"broker {self.number} was not ready after {START_S:g} s: see {self.log}") from None
        code = await self._process.wait()
        if not failpoints:
            raise TortureError(f"broker {self.number} ended with exit code {code}: see {self.log}")

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await self._wait()

    async def stop(self) -> int:
        """Sends SIGTERM, and returns the exit code."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(BROKER_STOP_S):
                return await self._wait()
        except TimeoutError:
            await self.kill()
            raise TortureError(f"broker {self.number} did not stop within {BROKER_STOP_S:g} s") from None

    async def ended(self, seconds: float) -> bool:
        """Does it end by itself within this time?"""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait()
                return True
        return False

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.up:
            assert self._process is not None
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _wait(self) -> int:
        return 0 if self._process is None else await self._process.wait()


class Stage:
    """It has `shards` databases, one Valkey and `count` brokers. `settings` are those of the brokers."""

    def __init__(self, home: Path, shards: int, count: int, secret: str, settings: dict[str, str]) -> None:
        self._home = home
        self._count = count
        self._secret = secret
        self._settings = settings
        stores = home / "stores"
        stores.mkdir(mode=0o711)
        self._stores = EmbeddedStores(stores, shards, steady_s=1.0)
        self._http: aiohttp.ClientSession | None = None
        self.urls = StoreUrls((), (), "")
        self.brokers: list[Broker] = []
        self.token = tokens.issue(secret, subject="torture", now=SystemClock().wall_us() / 1e6, ttl=24 * 3600)

    async def __aenter__(self) -> Self:
        try:
            self.urls = await self._stores.start()
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0))
            for number in range(self._count):
                self.brokers.append(await self._broker(number))
            for broker in self.brokers:
                await broker.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def _close(self) -> None:
        for broker in self.brokers:
            broker.resume()
            await broker.kill()
            await broker.postgres.close()
            await broker.redis.close()
        if self._http is not None:
            await self._http.close()
        await self._stores.stop()

    async def _broker(self, number: int) -> Broker:
        folder = self._home / f"broker-{number}"
        folder.mkdir(mode=0o700)
        sockets = Path(self.urls.database_urls[0].partition("host=")[2])
        postgres, cache = Proxy(sockets / ".s.PGSQL.5432"), Proxy(Path(self.urls.redis_addrs[0].removeprefix("unix://")))
        await postgres.start()
        await cache.start()
        through = (url.replace("@/", f"@127.0.0.1:{postgres.port}/").partition("?")[0] for url in self.urls.database_urls)
        settings = {
            "DATABASE_URLS": ",".join(through), "REDIS_ADDRS": f"127.0.0.1:{cache.port}", "REDIS_PASSWORD": self.urls.redis_password,
            "JWT_SECRET": self._secret, **self._settings,
        }  # fmt: skip
        return Broker(number, folder, settings, postgres, cache)

    # -- what faults do to the stores ----------------------------------------------------------------------------------

    async def flush_redis(self) -> None:
        await self.tell_redis("FLUSHALL")

    async def tell_redis(self, *command: str) -> None:
        async with aioredis.Redis(
            unix_socket_path=self.urls.redis_addrs[0].removeprefix("unix://"), password=self.urls.redis_password
        ) as client:
            await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def tell_postgres(self, statement: LiteralString) -> list[int]:
        """Tells the database of each shard. Returns the numbers that they answer with."""
        numbers: list[int] = []
        for url in self.urls.database_urls:
            async with await AsyncConnection.connect(url, autocommit=True) as connection:
                cursor = await connection.execute(statement)
                numbers += [number for (number,) in await cursor.fetchall()] if cursor.description else []
        return numbers

    def kill_redis(self) -> None:
        os.kill(self.pid("valkey"), signal.SIGKILL)

    def kill_postgres(self) -> None:
        """Stops it as `pg_ctl -m immediate stop` does."""
        os.kill(self.pid("postgresql"), signal.SIGQUIT)

    def without_postgres(self) -> AbstractAsyncContextManager[None]:
        """PostgreSQL is stopped meanwhile, and ready again afterwards."""
        return self._stores.without("postgresql")

    @property
    def postgres_files(self) -> Path:
        """Returns the folder of all that PostgreSQL has."""
        return self._home / "stores" / "pg" / "data"

    @asynccontextmanager
    async def without_shard(self, number: int) -> AsyncIterator[None]:
        """Nobody reaches this shard's database meanwhile, and Redis has forgotten the shard; the others are well."""
        name = self.urls.database_urls[number].partition("?")[0].rpartition("/")[2]
        database, allow = sql.Identifier(name), sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        async with await AsyncConnection.connect(self.urls.database_urls[number - 1], autocommit=True) as connection:
            await connection.execute(allow.format(database, sql.SQL("false")))
            try:
                await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
                await self.tell_redis("EVAL", FORGET, "0", f"{{mq{number}}}*")
                yield
            finally:
                await connection.execute(allow.format(database, sql.SQL("true")))

    def pid(self, store: str) -> int:
        pid = self._stores.pids().get(store)
        if pid is None:
            raise TortureError(f"{store} does not run")
        return pid

    # -- what they show ------------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Returns when every broker serves every shard, from Redis, and each shard has a leader. Raises TortureError
        past SETTLE_S.
        """
        deadline = time.monotonic() + SETTLE_S
        while not (all([await self._serves(broker) for broker in self.brokers]) and await self._led()):
            if time.monotonic() > deadline:
                raise TortureError(f"the brokers do not serve again within {SETTLE_S:g} s")
            await asyncio.sleep(0.05)

    async def _serves(self, broker: Broker) -> bool:
        assert self._http is not None
        try:
            async with self._http.get(f"{broker.url}/ready") as reply:
                return reply.status == 200 and all(shard["mode"] == "hot" for shard in (await reply.json())["shards"])
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _led(self) -> bool:
        led = [await self.metric(broker, "mqueue_leader", shard) for broker in self.brokers for shard in range(len(self.urls.database_urls))]
        return sum(one or 0 for one in led) == len(self.urls.database_urls)

    async def leader(self) -> Broker:
        """Returns the leader of the first shard; any broker where none leads just now."""
        for broker in self.brokers:
            if await self.metric(broker, "mqueue_leader") == 1:
                return broker
        return self.brokers[0]

    async def metric(self, broker: Broker, name: str, shard: int = 0) -> float | None:
        """Returns None where the broker does not answer."""
        assert self._http is not None
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._http.get(broker.metrics_url) as reply:
                found = re.search(rf'^{name}{{shard="{shard}"}} (\S+)$', await reply.text(), re.MULTILINE)
                return float(found[1]) if found else None
        return None

    async def drift(self) -> dict[str, int]:
        """Returns the topics whose ledger does not add up, and by how much."""
        return {line.topic: line.drift for line in await ledgers(self.urls.database_urls) if line.drift}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
