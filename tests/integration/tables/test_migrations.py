"""The database of an earlier version, with what is in it, becomes one of this version; once."""

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from mqueue.broker.embedded.stores import StoreUrls
from mqueue.broker.store.migrate import FOLDER, migrate

FIRST = ("0001_core", "0002_cold", "0003_retired", "0004_tick")
DATA = """
INSERT INTO topic (namespace, name) VALUES ('n', 't');
INSERT INTO message (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                     created_at_us, payload)
SELECT n, (SELECT id FROM topic), 0, 0, n, 0, 3, 1, 30000, 1, n, n, '\\x00' FROM generate_series(1, 3) n;
INSERT INTO orphan (id, kind, version, attempts, due_us, origin_node, origin_sequence)
VALUES (7, 'ack', 2, 0, 0, 1, 9), (8, 'nack', 2, 1, 0, 1, 9);
"""


@pytest.fixture
def url(stores: StoreUrls) -> Iterator[str]:
    """A database of its own."""
    whole = stores.database_urls[0]
    with psycopg.connect(whole, autocommit=True) as connection:
        connection.execute("CREATE DATABASE earlier")
        yield urlunsplit(urlsplit(whole)._replace(path="/earlier"))
        connection.execute("DROP DATABASE earlier WITH (FORCE)")


def test_a_database_of_the_first_version_with_data_is_brought_here_once(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE migration (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())")
        for name in FIRST:
            connection.execute((FOLDER / f"{name}.sql").read_bytes())
            connection.execute("INSERT INTO migration (name) VALUES (%s)", (name,))
        connection.execute(DATA)
    names = sorted(path.stem for path in FOLDER.glob("*.sql"))
    assert migrate(url) == names[len(FIRST) :] and migrate(url) == []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE orphan SET kind = 'cancel' WHERE id = 7")
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("UPDATE orphan SET kind = 'other' WHERE id = 7")
        counts = "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM orphan), (SELECT count(*) FROM result)"
        assert connection.execute(counts).fetchone() == (3, 2, 0)
