"""The embedded PostgreSQL is one server with one database per shard, a unix socket only, scram
passwords, and fsync on.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from mqueue.broker.embedded.binaries import find_postgres, lend_postgres
from mqueue.broker.embedded.ground import CREDENTIALS_FILE, EmbeddedError, Ground, socket_path
from mqueue.broker.embedded.process import Server, command_line, last_words, runs, spawn, surroundings, trim
from mqueue.paths import sync_folder

USER = "mqueue"
INIT_S = 120.0
START_S = 60.0  # crash recovery included
# Fast shutdown; immediate (recovers at the next start); and then by force.
STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "300",  # of each broker up to 25 a shard
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "5min",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def database_url(folder: Path, password: str, shard: int) -> str:
    """Returns the URL of a database. `folder`: where the socket is."""
    return f"postgresql://{USER}:{password}@/mqueue_{shard}?host={quote(str(folder), safe='/')}"


def database_urls(data_dir: Path) -> tuple[str, ...]:
    """Returns the URLs of the server that a broker runs on this data dir. Raises EmbeddedError where none answers."""
    try:
        password = json.loads((data_dir / CREDENTIALS_FILE).read_text())["postgres"]
        with psycopg.connect(database_url(data_dir / "pg", password, 0), connect_timeout=5) as connection:
            row = connection.execute("SELECT shards FROM shard").fetchone()
    except (OSError, ValueError, KeyError, psycopg.Error) as error:
        raise EmbeddedError(f"no broker runs on the data dir {data_dir}: {error}") from error
    return tuple(database_url(data_dir / "pg", password, shard) for shard in range(row[0] if row else 0))


class PostgreSQL:
    name = "postgresql"

    def __init__(self, ground: Ground, shards: int) -> None:
        self._account = ground.account
        self._folder = ground.subfolder("pg", ground.account)
        self._data = self._folder / "data"
        self._log = ground.subfolder("log") / "postgresql.log"
        self._programs = ground.folder / "programs"
        self._password = ground.credentials.postgres
        self._shards = shards
        self._marker = f"-D {self._data} "
        self._server: Server | None = None
        self._made = False  # the databases, by this process
        socket_path(self._folder / ".s.PGSQL.5432")

    @property
    def urls(self) -> tuple[str, ...]:
        """Returns one URL per shard, in order."""
        return tuple(database_url(self._folder, self._password, shard) for shard in range(self._shards))

    def alive(self) -> bool:
        return self._server is not None and self._server.alive()

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def trim_log(self) -> None:
        trim(self._log)

    async def start(self) -> bool:
        """Takes over the server that runs here, or starts one, with all databases; True when taken over. Raises
        EmbeddedError.
        """
        since = self._log.stat().st_size if self._log.exists() else 0
        left = self._left_running()
        if left is None:
            programs = await asyncio.to_thread(self._prepare)
            self._forget_stale_pid()
            self._server = spawn([str(programs / "postgres"), *self._arguments()], self._marker, self._folder, self._log, self._account)
        else:
            self._server = left
        await self._wait_ready(self._server, since)
        if not self._made:
            await self._make_databases()
            self._made = True
        return left is not None

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.end(STOP)
            self._server = None

    def _prepare(self) -> Path:
        """Makes binaries the account can run, and a cluster. Each is made aside and renamed, so that a half-made one is
        never used.
        """
        if self._account is None:
            programs = find_postgres()
        else:
            self._programs.mkdir(mode=0o755, exist_ok=True)
            self._programs.chmod(0o755)
            programs = lend_postgres(self._programs)
        if not self._data.exists():
            fresh = self._folder / "data.new"
            shutil.rmtree(fresh, ignore_errors=True)
            self._init(programs, fresh)
            fresh.rename(self._data)
            sync_folder(self._folder)
        return programs

    def _init(self, programs: Path, fresh: Path) -> None:
        """Runs `initdb`. The password goes through memory that only it and we can open: no argument, no file."""
        memory = os.memfd_create("password")
        try:
            os.write(memory, f"{self._password}\n".encode())
            os.lseek(memory, 0, os.SEEK_SET)
            command = [
                str(programs / "initdb"), "-D", str(fresh), f"--username={USER}", f"--pwfile=/proc/self/fd/{memory}",
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions",
            ]  # fmt: skip
            result = subprocess.run(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                pass_fds=[memory], start_new_session=True, timeout=INIT_S, check=False, **surroundings(self._account),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"initdb cannot make {fresh}: {error}") from error
        finally:
            os.close(memory)
        if result.returncode != 0:
            words = [line for line in (result.stderr + result.stdout).splitlines() if "error" in line.lower()] or [result.stderr]
            raise EmbeddedError(f"initdb cannot make {fresh}: {words[0].strip()}")

    def _arguments(self) -> list[str]:
        quoted = str(self._folder).replace('"', '""')
        settings = SETTINGS | {"unix_socket_directories": f'"{quoted}"'}
        return ["-D", str(self._data), *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]

    def _pid_in_file(self) -> int | None:
        with suppress(OSError, ValueError, IndexError):
            return int((self._data / "postmaster.pid").read_text().splitlines()[0])
        return None

    def _left_running(self) -> Server | None:
        pid = self._pid_in_file()
        return Server(pid, self._marker) if pid is not None and runs(pid, self._marker) else None

    def _forget_stale_pid(self) -> None:
        """Remove the pid files where their pid is another program's by now (a container or machine that restarted).

        PostgreSQL sorts out all other cases itself, and better: with a live backend left over its refusal is right.
        """
        pid = self._pid_in_file()
        words = command_line(pid) if pid is not None else ""
        if words and "postgres" not in words.split(" ", 1)[0]:
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self._folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    async def _wait_ready(self, server: Server, since: int) -> None:
        deadline = asyncio.get_running_loop().time() + START_S
        while True:
            try:
                await (await self._connect()).close()
                return
            except psycopg.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise EmbeddedError(f"PostgreSQL in {self._folder} does not take the password kept in the data dir") from error
            if not server.alive() or asyncio.get_running_loop().time() > deadline:
                server.send(signal.SIGQUIT)
                raise EmbeddedError(f"PostgreSQL does not start: {last_words(self._log, since) or 'no word from it'} (log: {self._log})")
            await asyncio.sleep(0.03)

    async def _connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        return await psycopg.AsyncConnection.connect(
            host=str(self._folder), user=USER, password=self._password, dbname="postgres", connect_timeout=5, autocommit=True
        )

    def _held(self) -> int | None:
        """Returns how many shards were begun here; None: none was, since the first start broke off."""
        try:
            with psycopg.connect(database_url(self._folder, self._password, 0), connect_timeout=5) as connection:
                row = connection.execute("SELECT shards FROM shard").fetchone()
        except psycopg.errors.UndefinedTable:
            return None
        return int(row[0]) if row else None

    async def _make_databases(self) -> None:
        async with await self._connect() as connection:
            rows = await (await connection.execute("SELECT datname FROM pg_database WHERE datname ~ '^mqueue_[0-9]+$'")).fetchall()
            there = {int(name.removeprefix("mqueue_")) for (name,) in rows}
            held = await asyncio.to_thread(self._held) if 0 in there else None
            if held not in (None, self._shards):
                raise EmbeddedError(
                    f"this data dir holds {held} shards, which is fixed at its first start: start with --shards {held}, "
                    f"or begin a new data dir with --shards {self._shards}"
                )
            for shard in sorted(set(range(self._shards)) - there):
                await connection.execute(f"CREATE DATABASE mqueue_{shard:d}".encode())
