"""The migrations bring a shard's database to the present schema: the files of `migrations/`, in order, each once, under
one lock.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from mqueue.broker.store.shard import CONNECT_S
from mqueue.errors import MQueueError


class NotMigrated(MQueueError):
    """A shard's database is as it was; `detail` says which, and why."""

    code, title = "not-migrated", "A database could not be migrated"


class Unfit(NotMigrated):
    """It cannot serve as it is set up. The broker exits with 78 (EX_CONFIG)."""

    exit_code = 78


class NotReached(NotMigrated):
    """Its PostgreSQL takes no connection, or lost one: it may later."""


FOLDER = Path(__file__).parent / "migrations"
BACKEND, LOOKS, PROBE_S = "SELECT pg_backend_pid()", 3, 10.0
LOCK = 0x6D71_0001  # any two brokers that start together migrate one after the other


def migrate(url: str) -> list[str]:
    """Applies what is missing; returns the names applied. Raises psycopg.Error, with the database unchanged by the file
    that failed, and Unfit with an untouched one.
    """
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S, client_encoding="UTF8") as connection:
        _check(connection, url)
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        connection.execute("CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())")
        done = {name for (name,) in connection.execute("SELECT name FROM migration")}
        applied = []
        for path in sorted(FOLDER.glob("*.sql")):
            if path.stem in done:
                continue
            with connection.transaction():
                connection.execute(path.read_bytes())
                connection.execute("INSERT INTO migration (name) VALUES (%s)", (path.stem,))
            applied.append(path.stem)
        return applied


def _check(connection: psycopg.Connection[Any], url: str) -> None:
    """Raises Unfit where it keeps texts in another encoding than what comes, or sessions are not what they seem."""
    name = connection.info.dbname
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        raise Unfit(
            f"the database {name} has the encoding {encoding}, and must have UTF8: "
            f"CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0, and pg_dump brings over what is in it"
        )
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S) as second, _limited(second):
        if _share(connection, second):
            raise Unfit(
                "a pooler gives one session of PostgreSQL to several of ours in turn (pool_mode = transaction or statement in PgBouncer), and "
                "locks and settings get lost: give the address of PostgreSQL itself, or of a pool with pool_mode = session"
            )


@contextmanager
def _limited(session: psycopg.Connection[Any]) -> Iterator[None]:
    """Cuts the session off after PROBE_S: a pooler that has no server to spare lets it wait, perhaps for ever."""
    cut = threading.Timer(PROBE_S, lambda: _shut(session.fileno()))
    cut.daemon = True
    cut.start()
    began = time.monotonic()
    try:
        yield
    except psycopg.OperationalError as error:
        if time.monotonic() - began < PROBE_S:
            raise
        raise psycopg.OperationalError(f"no second session within {PROBE_S:g} s: a pooler needs some 25 a shard (default_pool_size)") from error
    finally:
        cut.cancel()


def _shut(number: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def _share(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """Does one of them get what was the other's, or another session while that one is in use?"""
    own = one.execute(BACKEND).fetchone()
    try:
        for _ in range(LOOKS):
            with other.transaction():
                if other.execute(BACKEND).fetchone() == own or one.execute(BACKEND).fetchone() != own:
                    return True
    except psycopg.errors.ProtocolViolation:  # it allows no transaction
        return True
    return False


def migrate_all(urls: Sequence[str]) -> Iterator[str]:
    """Migrates all shards, one after the other: yields `shard: name` for each file applied. Raises NotMigrated for the
    first that fails.
    """
    for shard, url in enumerate(urls):
        yield from migrate_shard(shard, url)


def migrate_shard(shard: int, url: str) -> list[str]:
    """Migrates one: returns `shard: name` for each file applied. Raises NotMigrated, NotReached, Unfit."""
    try:
        return [f"shard {shard}: {name}" for name in migrate(url)]
    except Unfit as error:
        raise Unfit(f"shard {shard} of DATABASE_URLS: {error.detail}") from None
    except psycopg.Error as error:
        unread = isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None  # it would show a part, perhaps the password
        why = "it is no URL of a database" if unread else " ".join(str(error).split())
        kind = NotReached if isinstance(error, psycopg.OperationalError) else NotMigrated
        raise kind(f"shard {shard} of DATABASE_URLS: run this again once it is mended: {why}") from error
