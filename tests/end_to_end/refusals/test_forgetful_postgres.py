"""PostgreSQL forgets what it has said to be committed, and its timeline stays as it is; the brokers notice, and their
logs bring what is missing.
"""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from mqueue.broker.embedded import postgres
from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.waiting import wait_until

COUNT = 30


def put(http: Http, count: int = COUNT) -> list[int]:
    """Enqueues messages that are answered when PostgreSQL has them."""
    item, wish = {**http.name, "payload": "eA=="}, {"Mqueue-Durability": "postgres"}

    def one(_: int) -> list[int]:
        reply = http.call("POST", "/enqueue", [item], headers=wish)
        assert reply.headers["mqueue-durability"] == "postgres"
        return list(http.good(reply))

    with ThreadPoolExecutor(8) as many:
        return [id for ids in many.map(one, range(count)) for id in ids]


def test_a_server_that_goes_back_gets_what_it_lacks_from_the_log(stores: Stores) -> None:
    """As if the disk had lied: its files are those of a moment ago."""
    files, kept = stores.folder / "pg" / "data", stores.folder / "pg" / "kept"
    with Broker(env=stores.environment()) as broker:
        http = Http(broker.url, broker.token)
        put(http, 3)
        with stores.without("postgresql"):
            subprocess.run(["cp", "-a", files, kept], check=True)
        wait_until(lambda: http.call("POST", "/enqueue", [http.name]).status == 200, "it serves again")
        ids = put(http)
        epoch = broker.metric("mqueue_epoch")
        with stores.without("postgresql"):
            shutil.rmtree(files)
            kept.rename(files)
        wait_until(lambda: set(ids) <= rows(stores), "what was forgotten is back", 20)
        wait_until(lambda: broker.metric("mqueue_epoch") > epoch, "another epoch serves", 20)
        # the ledger is that of the rows
        [(live, count)] = stores.sql("SELECT enqueued - acked, (SELECT count(*) FROM message) FROM topic")
        assert live == count


def test_what_was_answered_survives_a_crash_whatever_the_database_says(stores: Stores) -> None:
    """`synchronous_commit=off` of the database is not that of the brokers' sessions."""
    stores.sql("ALTER DATABASE mqueue_0 SET synchronous_commit = off")
    stores.sql("ALTER SYSTEM SET wal_writer_delay = '10s'")
    stores.sql("SELECT pg_reload_conf()")
    with Broker(env=stores.environment()) as broker:
        ids = put(Http(broker.url, broker.token))
        stores.crash("postgresql")
        broker.kill()  # its host is gone, and the log with it: only PostgreSQL has them
        with stores.without("postgresql"):
            pass
        lost = len(set(ids) - rows(stores))
        assert lost == 0, f"{lost} of {len(ids)} are lost"


def test_a_server_that_does_not_sync_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres.SETTINGS, "fsync", "off")
    stores = Stores(data_dir)
    broker = Broker(env=stores.environment())
    try:
        with pytest.raises(AssertionError, match="fsync"):
            broker.start()
        assert broker.stop() == 78
    finally:
        broker.close()
        stores.close()


def rows(stores: Stores) -> set[int]:
    with suppress(psycopg.Error):
        return {id for (id,) in stores.sql("SELECT id FROM message")}
    return set()
