"""How connections are made is what the URL says; what it says and nobody keeps is refused."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import AuthenticationError, ConnectionError
from scripted import Scripted

from mqueue.broker.app import Broker
from mqueue.broker.cache.connections import Connections
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.config import ConfigError, load
from mqueue.broker.embedded import StoreUrls


def echo(command: list[bytes]) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(command[1]), command[1])


async def test_user_database_and_name_are_told_first() -> None:
    async with Scripted(echo).serve() as server:
        connections = server.connections(options="/3?protocol=2&username=ada&password=s%20t&client_name=here")
        assert await connections.execute(("ECHO", "1")) == b"1"
        assert server.greeted[0] == [b"AUTH", b"ada", b"s t"]
        assert [b"CLIENT", b"SETNAME", b"here"] in server.greeted
        assert server.greeted[-1] == [b"SELECT", b"3"]
        connections.close()


async def test_a_wrong_password_says_so_to_all() -> None:
    server = Scripted(echo)
    server.greet = lambda command: b"-WRONGPASS invalid username-password pair\r\n" if command[0] == b"AUTH" else b"+OK\r\n"
    async with server.serve():
        connections = server.connections(options="?protocol=2&password=wrong")
        errors = await asyncio.gather(*(connections.execute(("ECHO", n)) for n in range(5)), return_exceptions=True)
        assert [type(error) for error in errors] == [AuthenticationError] * 5
        assert not server.commands
        server.greet = lambda command: b"+OK\r\n"
        assert await connections.execute(("ECHO", "1")) == b"1"
        connections.close()


async def test_a_server_that_closes_at_once() -> None:
    server = Scripted(echo)
    server.greet = lambda command: None
    async with server.serve():
        connections = server.connections()
        errors = await asyncio.gather(*(connections.execute(("ECHO", n)) for n in range(5)), return_exceptions=True)
        assert [type(error) for error in errors] == [ConnectionError] * 5
        connections.close()


async def test_a_server_that_never_greets() -> None:
    server = Scripted(echo)
    server.greet = lambda command: b""
    async with server.serve():
        connections = server.connections(timeout=0.2)
        errors = await asyncio.gather(*(connections.execute(("ECHO", n)) for n in range(5)), return_exceptions=True)
        assert [type(error) for error in errors] == [TimeoutError] * 5
        server.greet = lambda command: b"+OK\r\n"
        assert await connections.execute(("ECHO", "1")) == b"1"
        connections.close()


async def test_nobody_listens() -> None:
    async with Scripted(echo).serve() as server:
        connections = server.connections()
        server.port = 1
        nowhere = server.connections()
        with pytest.raises(ConnectionError):
            await nowhere.execute(("ECHO", "1"))
        connections.close()


class Authority:
    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.file))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    yield Authority(tmp_path)


async def test_tls(authority: Authority) -> None:
    async with Scripted(echo).serve(authority.context) as server:
        connections = server.connections(scheme="rediss", options=f"?protocol=2&ssl_ca_certs={authority.file}")
        large = bytes(1 << 20)
        words: list[bytes] = [b"1", large, b"2", large, b"3"]
        for _ in range(3):
            assert await asyncio.gather(*(connections.execute(("ECHO", word)) for word in words)) == words
        for writer in server.writers:
            writer.close()
        assert await asyncio.gather(*(connections.execute(("ECHO", word)) for word in words), return_exceptions=True)
        assert await connections.execute(("ECHO", "again")) == b"again"
        connections.close()


@pytest.mark.parametrize("options", ["", "&ssl_ca_certs={other}"], ids=["of nobody", "of another authority"])
async def test_a_certificate_that_is_not_trusted(authority: Authority, tmp_path: Path, options: str) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    async with Scripted(echo).serve(authority.context) as server:
        connections = server.connections(scheme="rediss", options="?protocol=2" + options.format(other=other))
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await connections.execute(("ECHO", "1"))
        connections.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("decode_responses=1", "cannot have the option decode_responses"),
        ("health_check_interval=5&retry_on_timeout=1", "cannot have the option health_check_interval, retry_on_timeout"),
        ("socket_read_size=5", "cannot have the option socket_read_size"),
        ("unheard_of=1", "unknown or wrong: .*unheard_of"),
        ("ssl_cert_reqs=perhaps", "unknown or wrong"),
        ("db=many", "Invalid value for 'db'"),
    ],
)
async def test_what_is_not_kept_is_refused(options: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReadyCache(0, f"rediss://nowhere?{options}")


async def test_the_lesser_timeout_holds() -> None:
    server = Scripted(lambda command: b"")
    async with server.serve():
        pool = ConnectionPool.from_url(f"redis://127.0.0.1:{server.port}?protocol=2&socket_timeout=0.1", socket_timeout=None)
        connections = Connections(pool, 60.0)
        with pytest.raises(TimeoutError):
            await connections.execute(("ECHO", "1"))
        connections.close()


async def test_a_broker_names_the_setting() -> None:
    stores = StoreUrls(("postgresql://nowhere/0",), ("redis://nowhere?encoding=latin1",), "")
    settings = load({}, {}, Path("none"))
    broker = Broker(settings, lambda: settings)
    with pytest.raises(ConfigError, match=r"REDIS_ADDRS: .*encoding"):
        broker._cache(0, stores)
