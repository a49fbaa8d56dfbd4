"""The embedded stores: started, found again, brought back, refused."""

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from mqueue.broker.embedded import EmbeddedError, EmbeddedStores, StoreUrls
from mqueue.broker.embedded.ground import Account, require_way
from mqueue.broker.embedded.process import LOG_MAX, trim
from mqueue.broker.embedded.stores import DELAY_MAX_S, restart_delay
from mqueue.paths import PathError
from tests.waiting import until

AWAY = (psycopg.Error, redis.exceptions.RedisError, OSError)  # what a client meets while a store is down


@asynccontextmanager
async def running(data_dir: Path, shards: int = 1):
    stores = EmbeddedStores(data_dir, shards)
    urls = await stores.start()
    try:
        yield urls
    finally:
        await stores.stop()


async def ask(url: str, sql: str):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(sql)
        return (await cursor.fetchone())[0] if cursor.description else None


def cache(urls: StoreUrls, password: str | None = None) -> redis.asyncio.Redis:
    return redis.asyncio.Redis(
        unix_socket_path=urlsplit(urls.redis_addrs[0]).path,
        password=password or urls.redis_password,
        single_connection_client=True,
        retry=Retry(NoBackoff(), 0),
    )


async def valkey_pid(urls: StoreUrls) -> int:
    async with cache(urls) as client:
        return (await client.info("server"))["process_id"]


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "pg/data/postmaster.pid").read_text().splitlines()[0])


async def all_ended(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


async def test_one_database_per_shard_and_a_cache_that_never_evicts(data_dir):
    async with running(data_dir, shards=2) as urls:
        assert [await ask(url, "SELECT current_database()") for url in urls.database_urls] == ["mqueue_0", "mqueue_1"]
        assert await ask(urls.database_urls[0], "SHOW server_version_num") >= "180000"
        assert await ask(urls.database_urls[0], "SHOW fsync") == "on"
        async with cache(urls) as client:
            config = await client.config_get("maxmemory-policy", "save", "appendonly")
            assert config == {"maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}


async def test_nothing_listens_on_the_network_and_no_password_shows(data_dir):
    async with running(data_dir) as urls:
        password = urlsplit(urls.database_urls[0]).password
        for pid in (postmaster_pid(data_dir), await valkey_pid(urls)):
            process = psutil.Process(pid)
            assert process.net_connections("inet") == []
            shown = " ".join(process.cmdline()) + str(process.environ())
            assert password not in shown and urls.redis_password not in shown
            assert process.terminal() is None
            assert os.getsid(pid) != os.getsid(0)
    assert password not in repr(urls)


async def test_a_wrong_password_opens_neither(data_dir):
    async with running(data_dir) as urls:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await ask(urls.database_urls[0].replace(urlsplit(urls.database_urls[0]).password, "guess"), "SELECT 1")
        with pytest.raises(redis.exceptions.ConnectionError, match="invalid username-password"):
            async with cache(urls, "guess") as client:
                await client.ping()


async def test_what_others_may_see(data_dir):
    async with running(data_dir):
        for name in ("credentials.json", "lock", "valkey/valkey.conf", "log/postgresql.log"):
            assert (data_dir / name).stat().st_mode & 0o777 == 0o600, name
        for name in ("pg", "valkey", "log"):
            assert (data_dir / name).stat().st_mode & 0o777 == 0o700, name
        assert psutil.Process(postmaster_pid(data_dir)).uids().effective != 0


async def test_data_survives_a_stop_and_no_process_does(data_dir):
    async with running(data_dir) as urls:
        await ask(urls.database_urls[0], "CREATE TABLE kept AS SELECT 42 AS n")
        pids = postmaster_pid(data_dir), await valkey_pid(urls)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    async with running(data_dir) as again:
        assert again.database_urls == urls.database_urls
        assert await ask(again.database_urls[0], "SELECT n FROM kept") == 42


async def test_a_store_that_dies_comes_back(data_dir):
    async with running(data_dir) as urls:
        await ask(urls.database_urls[0], "CREATE TABLE kept AS SELECT 42 AS n")
        first = postmaster_pid(data_dir), await valkey_pid(urls)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        assert await until(lambda: ask(urls.database_urls[0], "SELECT n FROM kept"), despite=AWAY) == 42
        assert await until(lambda: valkey_pid(urls), despite=AWAY) != first[1]
        assert postmaster_pid(data_dir) != first[0]


KILLED_BROKER = """
import asyncio, sys
from pathlib import Path
from mqueue.broker.embedded import EmbeddedStores

async def main():
    await EmbeddedStores(Path(sys.argv[1]), 1).start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def killed_broker(data_dir):
    """A data dir whose broker was killed with -9; its stores still run."""
    broker = subprocess.Popen([sys.executable, "-c", KILLED_BROKER, str(data_dir)], stdout=subprocess.PIPE, text=True)
    for line in broker.stdout:
        if line == "ready\n":
            break
    broker.kill()
    broker.wait()
    broker.stdout.close()
    pids = postmaster_pid(data_dir), int((data_dir / "valkey/pid").read_text())
    yield data_dir
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


async def test_stores_of_a_killed_broker_are_taken_over(killed_broker):
    before = postmaster_pid(killed_broker), int((killed_broker / "valkey/pid").read_text())
    async with running(killed_broker) as urls:
        assert (postmaster_pid(killed_broker), await valkey_pid(urls)) == before
        os.kill(before[1], signal.SIGKILL)  # watched as before
        assert await until(lambda: valkey_pid(urls), despite=AWAY) != before[1]
        assert await ask(urls.database_urls[0], "SELECT 1") == 1
        postmaster = psutil.Process(before[0])
    assert await all_ended([postmaster])


async def test_a_pid_file_that_names_another_program(killed_broker):
    """As after a restart of the machine: the old pid belongs to somebody else, here to this test."""
    postmaster = psutil.Process(postmaster_pid(killed_broker))
    backends = postmaster.children()
    for pid in (postmaster.pid, int((killed_broker / "valkey/pid").read_text())):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: all_ended([postmaster, *backends]))
    pidfile = killed_broker / "pg/data/postmaster.pid"
    lines = pidfile.read_text().splitlines()
    pidfile.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    (killed_broker / "valkey/pid").write_text(str(os.getpid()))
    async with running(killed_broker) as urls:
        assert await ask(urls.database_urls[0], "SELECT 1") == 1
        assert await valkey_pid(urls) != os.getpid()


async def test_valkey_that_hangs_is_replaced(killed_broker):
    hung = int((killed_broker / "valkey/pid").read_text())
    os.kill(hung, signal.SIGSTOP)
    async with running(killed_broker) as urls:
        assert await valkey_pid(urls) != hung


async def test_a_data_dir_has_one_broker(data_dir):
    async with running(data_dir) as urls:
        with pytest.raises(EmbeddedError, match=f"in use by the broker with pid {os.getpid()}"):
            await EmbeddedStores(data_dir, 1).start()
        assert await ask(urls.database_urls[0], "SELECT 1") == 1


async def test_the_number_of_shards_is_fixed_once_one_was_begun(data_dir):
    async with running(data_dir, shards=2):
        pass
    async with running(data_dir, shards=3) as urls:  # none was begun
        with psycopg.connect(urls.database_urls[0], autocommit=True) as connection:
            connection.execute("CREATE TABLE shard AS SELECT 3 AS shards")
    for shards in (2, 4):
        with pytest.raises(EmbeddedError, match="holds 3 shards"):
            await EmbeddedStores(data_dir, shards).start()
    async with running(data_dir, shards=3) as urls:  # nothing of the failed starts is left
        assert len(urls.database_urls) == 3


async def test_a_failed_start_says_why_and_leaves_nothing(data_dir):
    async with running(data_dir):
        pass
    (data_dir / "pg/data/PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match="incompatible"):
        await EmbeddedStores(data_dir, 1).start()
    assert not (data_dir / "valkey/pid").exists()


async def test_a_path_too_long_for_a_socket_is_refused(data_dir):
    with pytest.raises(EmbeddedError, match="too long for a unix socket"):
        await EmbeddedStores(data_dir / ("x" * 80), 1).start()


async def test_a_folder_of_everybody_is_refused(data_dir):
    data_dir.chmod(0o777)
    (data_dir / "file").touch()
    with pytest.raises(PathError, match="can be written by others"):
        await EmbeddedStores(data_dir, 1).start()
    assert data_dir.stat().st_mode & 0o777 == 0o777


def test_the_folder_that_bars_the_way_is_named(data_dir):
    inner = data_dir / "closed" / "inner"
    inner.mkdir(parents=True)
    for folder, mode in ((data_dir, 0o711), (inner.parent, 0o700), (inner, 0o755)):
        folder.chmod(mode)
    stranger = Account("stranger", os.geteuid() + 12345, os.getegid() + 12345)
    with pytest.raises(EmbeddedError, match=f"cannot enter {inner.parent}:"):
        require_way(inner, stranger)
    inner.parent.chmod(0o711)
    require_way(inner, stranger)


def test_delays_before_a_restart():
    assert [restart_delay(n) for n in range(4)] == [0.0, 0.5, 1.0, 2.0]
    assert restart_delay(1000) == DELAY_MAX_S


def test_a_log_stays_bounded(tmp_path):
    log = tmp_path / "server.log"
    with log.open("ab") as writer:
        writer.write(b"a" * LOG_MAX + b"last")
        writer.flush()
        trim(log)
        writer.write(b"on")
    assert log.read_bytes() == b"on"
    kept = (tmp_path / "server.log.1").read_bytes()
    assert len(kept) == LOG_MAX and kept.endswith(b"last")
