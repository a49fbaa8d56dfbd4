"""A primary, its streaming replica and a Valkey, which nobody watches: what dies stays dead.

As an operator has them, but for the sockets: the URL names both servers and asks for the one that takes writes.
"""

import asyncio
import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psutil
import psycopg

from mqueue.broker.embedded import StoreUrls
from mqueue.broker.embedded.binaries import find_postgres
from mqueue.broker.embedded.ground import Ground, take
from mqueue.broker.embedded.postgres import USER, PostgreSQL
from mqueue.broker.embedded.valkey import Valkey
from mqueue.broker.store.verify import ledgers
from tests.waiting import until

COPY_S = 60.0
STREAMS_S = 20.0
PROMOTE_S = 20
SETTINGS = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on", "wal_sender_timeout": "2s"}


class Server(PostgreSQL):
    """`folder`: where its socket is."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground, shards=1)
        self.folder = ground.folder / "pg"
        self._owner = ground.account

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), *(word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}"))]

    def copy(self, primary: "Server") -> None:
        """Makes this one, which has never run, the replica of a primary that runs."""
        command = [
            str(find_postgres() / "pg_basebackup"), "--pgdata", str(self._data), "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
            "--host", str(primary.folder), "--username", USER,
        ]  # fmt: skip
        environment = {"PATH": os.defpath, "PGPASSWORD": self._password}
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=COPY_S)
        if self._owner is not None:
            for path in (self._data, *self._data.rglob("*")):
                os.chown(path, self._owner.uid, self._owner.gid)

    async def sql(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(
            host=str(self.folder), user=USER, password=self._password, dbname=database, connect_timeout=5, autocommit=True
        ) as connection:
            found = await connection.execute(query.encode())
            return await found.fetchall() if found.description else []

    def kill(self) -> None:
        """Nothing of it does anything any more. All stop first, so that none sees another one die."""
        assert self.pid is not None
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.pid)
            parent.suspend()
            processes = [parent, *parent.children(recursive=True)]
            for act in (psutil.Process.suspend, psutil.Process.kill):
                for process in processes:
                    with suppress(psutil.NoSuchProcess):
                        act(process)


class Replicated:
    """`synchronous`: a commit waits for the replica."""

    def __init__(self, data_dir: Path, *, synchronous: bool = True) -> None:
        self._synchronous = synchronous
        self._grounds = [take(data_dir / "a")]
        (data_dir / "b").mkdir(mode=0o711)
        self._grounds.append(replace(self._grounds[0], folder=data_dir / "b"))
        self.primary, self.replica = map(Server, self._grounds)
        self.valkey = Valkey(self._grounds[0])
        self._mute = socket.socket(socket.AF_UNIX)

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(self.primary.start(), self.valkey.start())
            await asyncio.to_thread(self.replica.copy, self.primary)
            if self._synchronous:
                await self.primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
                await self.primary.sql("SELECT pg_reload_conf()")
            await self.replica.start()
            await self._until_it_streams()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """At once: nobody needs what they hold."""
        self.primary.kill()
        self.replica.kill()
        await asyncio.gather(self.primary.stop(), self.replica.stop(), self.valkey.stop())
        self._mute.close()
        self._grounds[0].release()

    async def _until_it_streams(self) -> None:
        wanted = "sync" if self._synchronous else "async"
        query = "SELECT state, sync_state FROM pg_stat_replication"
        await until(lambda: self.primary.sql(query), "the replica streams", STREAMS_S, enough=lambda rows: rows == [("streaming", wanted)])

    async def detach(self) -> None:
        """The replica gets nothing any more, as if the link were slow."""
        await self.replica.sql("ALTER SYSTEM SET primary_conninfo = ''")
        await self.replica.sql("SELECT pg_reload_conf()")
        query = "SELECT pid FROM pg_stat_replication"
        await until(lambda: self.primary.sql(query), "the replica streams no more", STREAMS_S, enough=lambda rows: not rows)

    def lose_primary(self) -> None:
        """As its host loses power: who calls it waits for an answer that never comes."""
        self.primary.kill()
        path = self.primary.folder / ".s.PGSQL.5432"
        path.unlink()
        self._mute.bind(str(path))
        self._mute.listen(1000)
        path.chmod(0o600)

    async def promote(self) -> None:
        """Returns when the replica takes writes."""
        assert await self.replica.sql(f"SELECT pg_promote(true, {PROMOTE_S})") == [(True,)]

    @property
    def urls(self) -> StoreUrls:
        hosts = ",".join(quote(str(server.folder), safe="/") for server in (self.primary, self.replica))
        url = self.primary.urls[0].partition("?")[0] + f"?host={hosts}&target_session_attrs=read-write"
        return StoreUrls((url,), (self.valkey.address,), self._grounds[0].credentials.valkey)

    async def drift(self) -> dict[str, int]:
        return {line.topic: line.drift for line in await ledgers(self.urls.database_urls) if line.drift}
