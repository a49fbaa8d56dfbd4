"""Redis behind Sentinel: the master dies, a replica takes its place, and nothing is lost or out of order."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.cache.sentinel import ASK_TIMEOUT_S, Master, Service, parse
from mqueue.broker.cache.server import CALL_TIMEOUT_S
from mqueue.broker.daemons.epoch import REACH_S
from mqueue.broker.embedded import StoreUrls
from mqueue.broker.embedded.binaries import find_valkey
from mqueue.broker.faults import CacheLost, Refusal
from mqueue.broker.recovery import membership
from tests.processes.api import Http
from tests.processes.broker import Broker, free_ports
from tests.processes.certificate import make_certificate
from tests.processes.stores import Stores, environment
from tests.waiting import wait_until

FAILOVER_S = 30.0
OF_MASTER, OF_SENTINELS = "of@the/master", "of:the&sentinels"
SENTINEL = """
{where}
bind 127.0.0.1
dir {folder}
sentinel monitor main 127.0.0.1 {master} 1
{more}
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 5000
"""


class Servers:
    """A master, a replica, a sentinel that watches them. `certificate`: all of them speak TLS with it, and want the
    passwords of their kind.
    """

    def __init__(self, folder: Path, stack: ExitStack, certificate: Path | None = None) -> None:
        self._folder, self._stack, self._certificate = folder, stack, certificate
        self._program = "redis-server" if certificate else find_valkey()  # which was built without TLS
        self.master_port, self.replica_port, self.sentinel_port = free_ports(3)
        own = ("--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *self._secrets())
        self.master = self._start("master", *self._where(self.master_port), *own)
        self._start("replica", *self._where(self.replica_port), *own, "--replicaof", "127.0.0.1", str(self.master_port))
        wait_until(lambda: self._role(self.replica_port, "master_link_status") == "up", "the replica follows")
        settings = folder / "sentinel.conf"
        where = "\n".join(f"{name[2:]} {value}" for name, value in zip(*[iter(self._where(self.sentinel_port))] * 2, strict=True))
        more = f"requirepass {OF_SENTINELS}\nsentinel auth-pass main {OF_MASTER}" if certificate else ""
        settings.write_text(SENTINEL.format(where=where, folder=folder, master=self.master_port, more=more))
        self._start("sentinel", str(settings), "--sentinel")
        wait_until(lambda: self._knows_replica(), "the sentinel knows the replica", 20)

    def _where(self, port: int) -> tuple[str, ...]:
        if self._certificate is None:
            return "--port", str(port)
        cert, key = str(self._certificate), str(self._certificate.with_suffix(".key"))
        return (
            "--port", "0", "--tls-port", str(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert,
            "--tls-auth-clients", "no", "--tls-replication", "yes",
        )  # fmt: skip

    def _secrets(self) -> tuple[str, ...]:
        return ("--requirepass", OF_MASTER, "--masterauth", OF_MASTER) if self._certificate else ()

    def _client(self, port: int, password: str) -> "redis.Redis[bytes]":
        more = {"password": password, "ssl": True, "ssl_ca_certs": str(self._certificate)} if self._certificate else {}
        return redis.Redis(port=port, host="127.0.0.1", **more)

    def _start(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([self._program, *arguments], stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def _role(self, port: int, field: str) -> object:
        try:
            with self._client(port, OF_MASTER) as client:
                return client.info("replication").get(field)
        except redis.RedisError:
            return None

    def _knows_replica(self) -> bool:
        try:
            with self._client(self.sentinel_port, OF_SENTINELS) as client:
                return bool(client.sentinel_slaves("main"))
        except redis.RedisError:
            return False

    @property
    def url(self) -> str:
        hosts = f"127.0.0.1:1,127.0.0.1:{self.sentinel_port}"
        if self._certificate is None:
            return f"redis+sentinel://{hosts}/main"
        own, theirs = quote(OF_MASTER, safe=""), quote(OF_SENTINELS, safe="")
        return f"rediss+sentinel://:{own}@{hosts}/main?ssl_ca_certs={self._certificate}&sentinel_password={theirs}"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path, stack)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if missing := [tool for tool in ("openssl", "redis-server") if shutil.which(tool) is None]:
        pytest.skip(f"{' and '.join(missing)} missing")
    return make_certificate(tmp_path / "cert.pem")


@pytest.fixture(params=["plain", "TLS and passwords"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    certificate = None if request.param == "plain" else request.getfixturevalue("certificate")
    with ExitStack() as stack:
        yield Servers(tmp_path, stack, certificate)


def test_a_failover_loses_nothing(either: Servers, data_dir: Path) -> None:
    servers = either
    stores = Stores(data_dir)
    try:
        env = environment(StoreUrls(stores.urls.database_urls, (servers.url,), ""))
        with Broker(env=env) as first, Broker(env=env) as second:
            a, b = Http(first.url, first.token), Http(second.url, second.token)
            ids = a.put(*[b"x"] * 40) + b.put(*[b"y"] * 40)
            done = a.get(limit=10)
            assert [b.ack(m).body["status"] for m in done] == ["ok"] * 10
            servers.master.kill()

            def hot() -> bool:
                ready = [http.call("GET", "/ready") for http in (a, b)]
                return all(r.status == 200 and r.body["shards"][0]["mode"] == "hot" for r in ready) and first.metric("mqueue_epoch") > 1

            wait_until(hot, "hot on the new master", FAILOVER_S)
            assert servers._role(servers.replica_port, "role") == "master"

            def fetched() -> list[dict[str, Any]]:
                """A new epoch's topics are opened by its leader: on a slow machine a 503 may say so first."""
                reply = a.call("GET", "/dequeue", query={**a.name, "limit": 100})
                assert reply.status in (200, 503), reply
                return reply.body if reply.status == 200 else []

            assert [m["id"] for m in wait_until(fetched, "fetched", FAILOVER_S)] == ids[10:]
            assert b.put(b"z")
            assert len(b.get()) == 1
    finally:
        stores.close()


async def test_a_sentinel_that_does_not_answer_leaves_time_for_the_next(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        master = Master(Service([silent.getsockname(), ("127.0.0.1", servers.sentinel_port)], "main"))
        async with asyncio.timeout(CALL_TIMEOUT_S):
            assert await master.find() == ("127.0.0.1", servers.master_port)
        await master.close()


async def test_who_gives_up_on_a_silent_sentinel_begins_with_the_next(servers: Servers) -> None:
    """The one that died with the master may be the first, and no caller may have the patience that it takes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        master = Master(Service([silent.getsockname(), ("127.0.0.1", servers.sentinel_port)], "main"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(ASK_TIMEOUT_S / 4):
                await master.find()
        async with asyncio.timeout(ASK_TIMEOUT_S / 2):
            assert await master.find() == ("127.0.0.1", servers.master_port)
        await master.close()
    assert min(REACH_S, membership.REACH_S) > 2 * ASK_TIMEOUT_S


async def test_without_a_sentinel_the_master_goes_on() -> None:
    [closed] = free_ports(1)
    cache = ReadyCache(0, f"redis+sentinel://127.0.0.1:{closed}/main")
    assert cache._master is not None
    cache._master.used = ("127.0.0.1", 1)
    assert not await cache.has_moved()
    await cache.close()


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("redis+sentinel://a:1,b/main", Service([("a", 1), ("b", 26379)], "main")),
        (
            "rediss+sentinel://me:p%40ss@a:1/main?ssl_ca_certs=/ca.pem&sentinel_username=you&sentinel_password=s%26s",
            Service(
                [("a", 1)],
                "main",
                True,
                {"username": "me", "password": "p@ss", "ssl_ca_certs": "/ca.pem"},
                {"username": "you", "password": "s&s", "ssl_ca_certs": "/ca.pem"},
            ),
        ),
        ("redis://a:1", None),
        ("redis+sentinel://a:1", None),
    ],
)
def test_the_url_names_sentinels_and_service(url: str, service: Service | None) -> None:
    assert parse(url) == service


@pytest.mark.parametrize("query", ["sentinel_db=1", "a", "socket_timeout=soon"])
def test_a_url_of_sentinels_with_wrong_options_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match=r"sentinels|socket_timeout") as refused:
        parse(f"redis+sentinel://:a-password@a:1/main?{query}")
    assert "a-password" not in str(refused.value)


async def test_a_sentinel_that_wants_a_password_says_so(certificate: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = Servers(tmp_path, stack, certificate)
        cache = ReadyCache(0, servers.url.replace("127.0.0.1:1,", "").replace("&sentinel_password=", "&sentinel_password=not-"))
        with pytest.raises(CacheLost) as lost:
            await cache.version()
        await cache.close()
    assert lost.value.kind is Refusal.NO_ACCESS


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (Refusal.UNKNOWN_HOST, "redis+sentinel://nowhere.invalid:26379/main"),
        (Refusal.SILENT, "redis+sentinel://nowhere.invalid:26379,127.0.0.1:1/main"),
    ],
)
async def test_sentinels_without_an_address_are_told_from_silent_ones(kind: Refusal, url: str) -> None:
    cache = ReadyCache(0, url)
    with pytest.raises(CacheLost) as lost:
        await cache.version()
    await cache.close()
    assert lost.value.kind in (kind, Refusal.SILENT if _has_no_resolver() else kind)


def _has_no_resolver() -> bool:
    try:
        socket.getaddrinfo("nowhere.invalid", 1)
    except socket.gaierror as error:
        return error.errno == socket.EAI_AGAIN
    return False
