"""The migrations bring a shard's database to the present schema: the files of `migrations/`, in order, each once, under
one lock.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from mqueue.broker.store.shard import CONNECT_S
from mqueue.errors import MQueueError


class NotMigrated(MQueueError):
    """A shard's database is as it was; `detail` says which, and why."""

    code, title = "not-migrated", "A database could not be migrated"


class NotUtf8(NotMigrated):
    """It keeps texts in another encoding than what comes. The broker exits with 78 (EX_CONFIG)."""

    exit_code = 78


class NotReached(NotMigrated):
    """Its PostgreSQL takes no connection, or lost one: it may later."""


FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x6D71_0001  # any two brokers that start together migrate one after the other


def migrate(url: str) -> list[str]:
    """Applies what is missing; returns the names applied. Raises psycopg.Error, with the database unchanged by the file
    that failed, and NotUtf8 with an untouched one.
    """
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S, client_encoding="UTF8") as connection:
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            name = connection.info.dbname
            raise NotUtf8(
                f"the database {name} has the encoding {encoding}, and must have UTF8: "
                f"CREATE DATABASE {name} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
            )
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


def migrate_all(urls: Sequence[str]) -> Iterator[str]:
    """Migrates all shards, one after the other: yields `shard: name` for each file applied. Raises NotMigrated for the
    first that fails.
    """
    for shard, url in enumerate(urls):
        yield from migrate_shard(shard, url)


def migrate_shard(shard: int, url: str) -> list[str]:
    """Migrates one: returns `shard: name` for each file applied. Raises NotMigrated, NotReached, NotUtf8."""
    try:
        return [f"shard {shard}: {name}" for name in migrate(url)]
    except NotUtf8 as error:
        raise NotUtf8(f"shard {shard} of DATABASE_URLS: {error.detail}") from None
    except psycopg.Error as error:
        unread = isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None  # it would show a part, perhaps the password
        why = "it is no URL of a database" if unread else " ".join(str(error).split())
        kind = NotReached if isinstance(error, psycopg.OperationalError) else NotMigrated
        raise kind(f"shard {shard} of DATABASE_URLS: run this again once it is mended: {why}") from error
