"""A PostgreSQL that answers and refuses: full, read-only, closed to sessions. Redis serves meanwhile, in the same
epoch, and what was taken is flushed afterwards.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest

from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.waiting import wait_until

REFUSES_S = 3.0
SOON_S = 30.0
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'mqueue %'"
RAISE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON message EXECUTE FUNCTION refuse();
"""


def tell(stores: Stores, *statements: str) -> None:
    """Says it where no broker has a session: to another database, which takes writes."""
    url = stores.urls.database_urls[0].replace("/mqueue_0", "/postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


@contextmanager
def full(stores: Stores) -> Iterator[None]:
    """It says so of each write of a message."""
    stores.sql(RAISE)
    try:
        yield
    finally:
        stores.sql("DROP FUNCTION refuse CASCADE")


@contextmanager
def read_only(stores: Stores) -> Iterator[None]:
    tell(stores, "ALTER DATABASE mqueue_0 SET default_transaction_read_only = on", END_SESSIONS)
    try:
        yield
    finally:
        tell(stores, "ALTER DATABASE mqueue_0 RESET default_transaction_read_only", END_SESSIONS)


@contextmanager
def closed(stores: Stores) -> Iterator[None]:
    tell(stores, "ALTER DATABASE mqueue_0 ALLOW_CONNECTIONS false", END_SESSIONS)
    try:
        yield
    finally:
        tell(stores, "ALTER DATABASE mqueue_0 ALLOW_CONNECTIONS true")


@pytest.mark.parametrize("refuses", [full, read_only, closed])
def test_redis_serves_on_and_all_is_flushed_afterwards(stores: Stores, refuses: Callable[[Stores], AbstractContextManager[None]]) -> None:
    with Broker(env=stores.environment()) as broker:
        http = Http(broker.url, broker.token)
        http.put(b"0")
        [first] = wait_until(http.get, "the topic is open", SOON_S)
        assert Http.good(http.ack(first))
        epoch, done, left = broker.metric("mqueue_epoch"), 0, 0
        with refuses(stores):
            flushed, end = broker.metric("mqueue_flush_rows_total"), time.monotonic() + REFUSES_S
            while time.monotonic() < end:
                http.put(b"%d" % done)
                [got] = http.get(1)
                assert Http.good(http.ack(got))
                http.put(b"stays", priority=9)
                done, left = done + 1, left + 1
            assert broker.metric("mqueue_flush_rows_total") == flushed, "it refused nothing"
        assert done > 0
        wait_until(lambda: stores.rows() == left, "all is flushed", SOON_S)
        assert broker.metric("mqueue_epoch") == epoch
