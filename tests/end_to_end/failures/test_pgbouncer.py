"""PostgreSQL behind PgBouncer: sessions that are ours alone are as good as any; shared ones are refused."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from mqueue.broker.embedded.ground import ACCOUNTS
from tests.processes.api import Http
from tests.processes.broker import Broker, free_ports
from tests.processes.stores import Stores
from tests.waiting import wait_until

SETTINGS = """
[databases]
{name} = host={host} port=5432 dbname={name} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 60
logfile = {folder}/log
"""
pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is missing")


@pytest.fixture
def stores(data_dir: Path) -> Iterator[Stores]:
    stores = Stores(data_dir)
    yield stores
    stores.close()


@contextmanager
def pooled(stores: Stores, folder: Path, mode: str) -> Iterator[str]:
    """Yields the URL of the database through a pooler. As root it runs under PostgreSQL's own account."""
    url = urlsplit(stores.urls.database_urls[0])
    name, [host], [port] = url.path.strip("/"), parse_qs(url.query)["host"], free_ports(1)
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        SETTINGS.format(name=name, host=host, user=url.username, password=unquote(url.password or ""), port=port, mode=mode, folder=folder)
    )
    account = ["-u", next(name for name in ACCOUNTS if _has(name))] if os.geteuid() == 0 else []
    server = subprocess.Popen(["pgbouncer", "-q", *account, str(settings)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "process up" in _read(folder / "log"), "the pooler listens")
        yield f"postgresql://{url.username}@127.0.0.1:{port}/{name}"
    finally:
        server.terminate()
        server.wait()


def _has(account: str) -> bool:
    return subprocess.run(["id", account], capture_output=True).returncode == 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_sessions_of_a_pool_are_as_good_as_any(stores: Stores, data_dir: Path) -> None:
    with pooled(stores, data_dir / "pooler", "session") as url:
        env = stores.environment(DATABASE_URLS=url)
        with Broker(env=env) as broker, Broker(env=env) as other:
            http, second = Http(broker.url, broker.token), Http(other.url, other.token)
            ids = http.put(*[b"x"] * 20) + second.put(*[b"y"] * 20)
            wait_until(lambda: stores.rows() == 40, "all are in PostgreSQL")
            broker.kill()
            wait_until(lambda: other.metric("mqueue_leader") == 1, "the other one leads", 30)
            got = wait_until(lambda: second.get(limit=100), "and serves", 30, despite=AssertionError)  # 503 while it opens the topic
            assert [m["id"] for m in got] == ids
            assert {second.ack(m).body["status"] for m in got} == {"ok"}
            wait_until(lambda: stores.rows() == 0, "and none is left")


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_sessions_that_are_shared_are_refused(stores: Stores, data_dir: Path, mode: str) -> None:
    with pooled(stores, data_dir / "pooler", mode) as url:
        broker = Broker(env=stores.environment(DATABASE_URLS=url))
        try:
            with pytest.raises(AssertionError, match="pool_mode = session"):
                broker.start()
            assert broker.stop() == 78
        finally:
            broker.close()
