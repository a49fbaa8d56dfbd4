"""Brings a shard's database to the present schema: the files of `migrations/`, in order, each once, under one lock."""

from pathlib import Path

import psycopg

from mqueue.broker.store.shard import CONNECT_S

FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x6D71_0001  # any two brokers that start together migrate one after the other


def migrate(url: str) -> list[str]:
    """Applies what is missing; returns the names applied. Raises psycopg.Error, with the database unchanged by the file that failed."""
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S) as connection:
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


def migrate_all(urls: tuple[str, ...] | list[str]) -> list[str]:
    """All shards; returns `shard: name` for each file applied."""
    return [f"shard {shard}: {name}" for shard, url in enumerate(urls) for name in migrate(url)]
