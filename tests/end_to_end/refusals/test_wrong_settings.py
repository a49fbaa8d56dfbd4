"""Whatever is wrong with what a broker is given: it ends, with a code that says whether another start may help, and one
line that names what is wrong and what to do.
"""

import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from mqueue.broker.embedded import StoreUrls
from mqueue.broker.embedded.binaries import find_valkey
from tests.processes.api import Http
from tests.processes.broker import Broker, free_ports
from tests.processes.certificate import make_certificate
from tests.processes.stores import SECRET, Stores
from tests.waiting import wait_until

CONFIG, IO_ERROR, USAGE, AGAIN = 78, 74, 2, 1


@dataclass
class Place:
    """What is there for a broker to be wrong about. `tls`: a folder with a certificate of this machine's own making."""

    stores: Stores
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def urls(self) -> StoreUrls:
        return self.stores.urls

    def fresh(self) -> dict[str, str]:
        """The settings with a database that has never served."""
        with psycopg.connect(self.urls.database_urls[0], autocommit=True) as connection:
            connection.execute(b"DROP DATABASE IF EXISTS fresh WITH (FORCE)")
            connection.execute(b"CREATE DATABASE fresh ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0")
        return self.database(name="fresh")

    def database(self, **parts: str) -> dict[str, str]:
        """The settings with another URL of the database: `name`, `user`, `password`, `host`, `port`."""
        url = urlsplit(self.urls.database_urls[0])
        host = dict(pair.split("=", 1) for pair in url.query.split("&")).get("host", "") if url.query else ""
        told = {"user": url.username or "", "password": url.password or "", "name": url.path.strip("/"), "host": host, "port": ""} | parts
        where = f"@{told['host']}:{told['port']}/{told['name']}" if told["port"] else f"@/{told['name']}?host={told['host']}"
        return {"DATABASE_URLS": f"postgresql://{told['user']}:{told['password']}{where}"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="mq-") as home:
        Path(home).chmod(0o711)
        stores = Stores(Path(home) / "d")
        place = Place(stores, Path(home))
        try:
            with psycopg.connect(stores.urls.database_urls[0], autocommit=True) as connection:
                for encoding in ("SQL_ASCII", "LATIN1"):
                    connection.execute(f"CREATE DATABASE {encoding.lower()} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
                connection.execute(b"CREATE DATABASE closed ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0")
                connection.execute(b"CREATE ROLE reader LOGIN PASSWORD 'of-this-test'")
            (place.folder / "no-certificate").write_text("this is none\n")
            (place.folder / "a-file").write_text("no folder\n")
            with taken_port() as port, valkeys(place) as ports:
                place.ports = ports | {"taken": port}
                yield place
        finally:
            stores.close()


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


SERVERS = {
    "evicts": "maxmemory 100mb\nmaxmemory-policy allkeys-lru\n",
    "closed": "requirepass of-this-test\n",
    "narrow": "user narrow on >of-this-test ~* +ping +info\n",
    "cluster": "cluster-enabled yes\n",
    "owner": "cluster-enabled yes\n",  # of all slots
}


@contextmanager
def valkeys(place: Place) -> Iterator[dict[str, int]]:
    ports = dict(zip(SERVERS, free_ports(len(SERVERS)), strict=True))  # below 55,536, as a cluster wants
    running = []
    try:
        for name, settings in SERVERS.items():
            port, folder = ports[name], place.folder / name
            folder.mkdir()
            server = subprocess.Popen([find_valkey(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=folder)
            running.append(server)
            assert server.stdin is not None
            with server.stdin as said:
                said.write(f'port {port}\nbind 127.0.0.1\nsave ""\n{settings}'.encode())
            wait_until(lambda port=port: listens(port), "Valkey listens")  # type: ignore[misc]
        with redis.Redis(port=ports["owner"]) as owner, redis.Redis(port=ports["cluster"]) as other:
            owner.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            owner.execute_command("CLUSTER", "MEET", "127.0.0.1", ports["cluster"])
            wait_until(lambda: b"cluster_state:ok" in other.execute_command("CLUSTER", "INFO"), "both know who has what", 20)
        yield ports
    finally:
        for server in running:
            server.kill()
            server.wait()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Wrong:
    """`env`, with `{closed}` and the like for what is only known there; `code`; `says` all of these, in one line."""

    what: str
    env: dict[str, str]
    code: int
    says: tuple[str, ...]
    args: tuple[str, ...] = ()
    database: dict[str, str] = field(default_factory=dict)


WRONG = [
    # how they are written
    Wrong("a name that nobody knows", {"MQUEUE_LEASE": "5"}, CONFIG, ("MQUEUE_LEASE", "did you mean MQUEUE_LEASE_S")),
    Wrong("a number that is none", {"MQUEUE_READY_MAX": "many"}, CONFIG, ("MQUEUE_READY_MAX", "integer")),
    Wrong("a number out of range", {"MQUEUE_LEASE_S": "0"}, CONFIG, ("MQUEUE_LEASE_S", "greater than or equal to 1")),
    Wrong("a word that is none", {"MQUEUE_LOG_LEVEL": "loud"}, CONFIG, ("MQUEUE_LOG_LEVEL", "debug")),
    Wrong("a flag that nobody knows", {}, USAGE, ("No such option", "--prot"), args=("--prot", "80")),
    Wrong("two limits that contradict", {"MQUEUE_BUFFER_MAX_MB": "200"}, CONFIG, ("MQUEUE_REDIS_MAX_MB", "less than twice")),
    Wrong("quotas", {"NAMESPACE_QUOTAS": "a=1"}, CONFIG, ("NAMESPACE_QUOTAS", "default:10000")),
    Wrong("namespaces", {"MQUEUE_POSTGRES_NAMESPACES": "a b"}, CONFIG, ("MQUEUE_POSTGRES_NAMESPACES", "commas")),
    Wrong("a secret too short", {"JWT_SECRET": "short"}, CONFIG, ("JWT_SECRET", "openssl rand")),
    Wrong("no secret beside shared stores", {"JWT_SECRET": ""}, CONFIG, ("JWT_SECRET", "openssl rand")),
    Wrong("Redis without PostgreSQL", {"DATABASE_URLS": ""}, CONFIG, ("DATABASE_URLS", "belong together")),
    Wrong("PostgreSQL without Redis", {"REDIS_ADDRS": ""}, CONFIG, ("REDIS_ADDRS", "belong together")),
    Wrong("no URL of a database", {"DATABASE_URLS": "mysql://here/mqueue"}, CONFIG, ("DATABASE_URLS", "postgresql://")),
    Wrong("no address of a Redis", {"REDIS_ADDRS": "http://here"}, CONFIG, ("REDIS_ADDRS", "redis://")),
    Wrong("an option of Redis that is not kept", {"REDIS_ADDRS": "redis://127.0.0.1:1?decode_responses=1"}, CONFIG, ("REDIS_ADDRS", "decode")),
    # files and ports
    Wrong("half of a certificate", {"TLS_CERT_FILE": "{folder}/no-certificate"}, CONFIG, ("TLS_CERT_FILE", "TLS_KEY_FILE", "both")),
    Wrong(
        "a certificate that is not there",
        {"TLS_CERT_FILE": "{folder}/gone.pem", "TLS_KEY_FILE": "{folder}/gone.pem"},
        CONFIG,
        ("TLS_CERT_FILE", "gone.pem", "cannot be read"),
    ),
    Wrong(
        "a certificate that is none",
        {"TLS_CERT_FILE": "{folder}/no-certificate", "TLS_KEY_FILE": "{folder}/no-certificate"},
        CONFIG,
        ("TLS_CERT_FILE", "no-certificate"),
    ),
    Wrong("a log in a file", {"WAL_DIR": "{folder}/a-file"}, IO_ERROR, ("a-file", "Not a directory")),
    Wrong("a port that is taken", {}, AGAIN, ("cannot listen on the port",), args=("--port", "{taken}")),
    Wrong("an address of another machine", {}, AGAIN, ("cannot listen", "192.0.2.1"), args=("--host", "192.0.2.1")),
    # PostgreSQL
    Wrong("a database that is not there", {}, AGAIN, ("shard 0", "nowhere", "does not exist"), database={"name": "nowhere"}),
    Wrong("a password of PostgreSQL", {}, AGAIN, ("shard 0", "password authentication failed"), database={"password": "wrong"}),
    Wrong("a port of PostgreSQL", {}, AGAIN, ("shard 0", "refused"), database={"host": "127.0.0.1", "port": "1"}),
    Wrong("a host of PostgreSQL", {}, AGAIN, ("shard 0", "nowhere.invalid"), database={"host": "nowhere.invalid", "port": "5432"}),
    Wrong("no encoding", {}, CONFIG, ("shard 0", "SQL_ASCII", "ENCODING 'UTF8'"), database={"name": "sql_ascii"}),
    Wrong("another encoding", {}, CONFIG, ("shard 0", "LATIN1", "ENCODING 'UTF8'"), database={"name": "latin1"}),
    Wrong(
        "a user who may not make tables",
        {},
        AGAIN,
        ("shard 0", "permission denied"),
        database={"name": "closed", "user": "reader", "password": "of-this-test"},
    ),
    # Redis
    Wrong("no password for Redis", {"REDIS_ADDRS": "127.0.0.1:{closed}", "REDIS_PASSWORD": ""}, CONFIG, ("Redis", "REDIS_PASSWORD")),
    Wrong(
        "a password of Redis",
        {"REDIS_ADDRS": "127.0.0.1:{closed}", "REDIS_PASSWORD": "wrong"},
        CONFIG,
        ("invalid username-password", "REDIS_PASSWORD"),
    ),
    Wrong(
        "a user of Redis who may do nothing",
        {"REDIS_ADDRS": "redis://narrow:of-this-test@127.0.0.1:{narrow}", "REDIS_PASSWORD": ""},
        CONFIG,
        ("permissions", "user and password"),
    ),
    Wrong("a host of Redis", {"REDIS_ADDRS": "nowhere.invalid:6379"}, CONFIG, ("nowhere.invalid", "REDIS_ADDRS", "--allow-cold")),
    Wrong("a certificate of Redis", {"REDIS_ADDRS": "rediss://127.0.0.1:{tls}"}, CONFIG, ("certificate", "ssl_ca_certs")),
    Wrong("a Redis that throws keys away", {"REDIS_ADDRS": "127.0.0.1:{evicts}", "REDIS_PASSWORD": ""}, CONFIG, ("noeviction",)),
    Wrong("a Redis Cluster", {"REDIS_ADDRS": "127.0.0.1:{cluster}", "REDIS_PASSWORD": ""}, CONFIG, ("MOVED", "cluster", "slot")),
]


def each() -> Iterator[object]:
    """Those that need a resolver may be skipped where there is none; no other may in CI."""
    for wrong in WRONG:
        yield pytest.param(wrong, id=wrong.what, marks=[pytest.mark.may_skip] if "nowhere.invalid" in str(wrong.env) else [])


@pytest.mark.parametrize("wrong", each())
def test_the_line_names_cause_and_remedy(place: Place, wrong: Wrong) -> None:
    if "nowhere.invalid" in str(wrong.env):
        has_resolver()
    with untrusted(place) if "{tls}" in str(wrong.env) else nullcontext(0) as port:
        there = place.ports | {"tls": port, "folder": str(place.folder)}
        database = place.database(**wrong.database) if wrong.database else place.fresh()
        env = place.stores.environment() | database | {n: v.format(**there) for n, v in wrong.env.items()}
        broker = Broker(*(arg.format(**there) for arg in wrong.args), env=env)
        try:
            with pytest.raises(AssertionError, match="not ready"):
                broker.start()
            code, said = broker.stop(), broker.last_words()
        finally:
            broker.close()
    assert code == wrong.code, said
    lines = [line for line in said.splitlines() if all(part in line for part in wrong.says)]
    assert len(lines) >= 1 and "Traceback" not in said, said
    assert SECRET not in said and "of-this-test" not in said, "no secret is told"


@pytest.mark.may_skip  # without a resolver
def test_a_shard_that_has_served_starts_whatever_is_wrong_with_its_redis(place: Place) -> None:
    """What it was given was right once: the name of a container that is down has no address, and will have one."""
    has_resolver()
    env = place.stores.environment() | place.fresh()
    with Broker(env=env) as broker:
        assert broker.stop() == 0
        for _ in range(2):
            broker.start(REDIS_ADDRS="nowhere.invalid:6379")
            http = Http(broker.url, broker.token)
            wait_until(lambda http=http: http.put(b"x"), "it takes messages", 30, despite=AssertionError)  # type: ignore[misc]
            wait_until(lambda http=http: shard(http)["redis"] == "unknown-host", "it is told why")  # type: ignore[misc]
            wait_until(lambda http=http: shard(http)["mode"] == "cold", "PostgreSQL serves", 30)  # type: ignore[misc]
            wait_until(lambda: broker.metric("mqueue_redis_misconfigured") == 1, "and a metric tells")
            assert broker.stop() == 0


def shard(http: Http) -> dict[str, str]:
    [told] = http.call("GET", "/ready").body["shards"]
    return dict(told)


def has_resolver() -> None:
    try:
        socket.getaddrinfo("nowhere.invalid", 6379)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            pytest.skip("nobody resolves names here")


@contextmanager
def untrusted(place: Place) -> Iterator[int]:
    """A server with a certificate that nobody trusts. It only shakes hands."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    cert = make_certificate(place.folder / "cert.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, cert.with_suffix(".key"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.2)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    client, _ = listening.accept()
                    client.settimeout(2)
                    with context.wrap_socket(client, server_side=True):
                        pass
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            thread.join()
