"""Stores that no broker started: they outlive every broker of a test."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis

from mqueue.broker.embedded import EmbeddedStores, StoreUrls

SECRET = "only for this test, and longer than thirty-two bytes"


def environment(urls: StoreUrls) -> dict[str, str]:
    return {
        "DATABASE_URLS": ",".join(urls.database_urls), "REDIS_ADDRS": ",".join(urls.redis_addrs), "REDIS_PASSWORD": urls.redis_password,
        "JWT_SECRET": SECRET,
    }  # fmt: skip


class Stores:
    """Stores of their own, which no broker started: they outlive both."""

    def __init__(self, data_dir: Path, shards: int = 1) -> None:
        self.folder = data_dir
        self._runner = asyncio.Runner()
        self._embedded = EmbeddedStores(data_dir, shards)
        self.urls: StoreUrls = self._runner.run(self._embedded.start())

    def close(self) -> None:
        self._runner.run(self._embedded.stop())
        self._runner.close()

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """This one is stopped meanwhile, and ready again afterwards."""
        away = self._embedded.without(name)
        self._runner.run(away.__aenter__())
        try:
            yield
        finally:
            self._runner.run(away.__aexit__(None, None, None))

    def crash(self, name: str) -> None:
        """SIGQUIT: it ends at once, and keeps what is on its disk."""
        os.kill(self._embedded.pids()[name], signal.SIGQUIT)

    def environment(self, **more: str) -> dict[str, str]:
        """The settings of a broker that uses them."""
        return environment(self.urls) | more

    def flush_redis(self) -> None:
        """As if Redis had lost everything."""
        with redis.Redis(unix_socket_path=self.urls.redis_addrs[0].removeprefix("unix://"), password=self.urls.redis_password) as client:
            client.flushall()

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.urls.database_urls[0], autocommit=True) as connection:
            found = connection.execute(query)  # type: ignore[call-overload]
            return found.fetchall() if found.description else []

    def rows(self) -> int:
        with psycopg.connect(self.urls.database_urls[0]) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM message")
        return int(count)
