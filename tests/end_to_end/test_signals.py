"""What a broker makes of signals."""

import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from mqueue import tokens
from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.waiting import wait_until

OLD, NEW = "the old secret, of 32 bytes or more", "the new secret, of 32 bytes or more"
ON_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"  # it becomes the terminal of that process


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_is_one(again: signal.Signals) -> None:
    """As where a process manager tells the whole group: it ends in order all the same."""
    with Broker() as broker:
        pid = broker.pid
        process = broker._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)
        process.send_signal(again)
        assert process.wait(35) == 0
        assert broker.postgres_pid() is None, "its stores ended with it"
        assert pid == process.pid and "all that this broker had taken is in PostgreSQL" in broker.last_words()


def test_sighup_reloads_the_secret_or_keeps_the_old_one() -> None:
    broker = Broker()
    dotenv = broker.home / ".env"  # a broker's working directory is its home here
    dotenv.write_text(f"JWT_SECRET={OLD}\n")
    with broker:
        stores = broker.postgres_pid(), broker.valkey_pid()
        assert status(broker, OLD) == 200
        dotenv.write_text(f"JWT_SECRET={NEW}\n")
        os.kill(broker.pid, signal.SIGHUP)
        wait_until(lambda: status(broker, NEW) == 200, "the new secret counts", 15)
        assert status(broker, OLD) == 401
        wait_until(lambda: Http(broker.url, broker.token).call("GET", "/topics").status == 200, "so does the token it leaves", 15)
        dotenv.write_text("JWT_SECRET=short\n")
        os.kill(broker.pid, signal.SIGHUP)
        wait_until(lambda: "shorter than 32 bytes" in broker.last_words(), "a wrong one is told", 15)
        assert status(broker, NEW) == 200
        assert broker.stop() == 0
        assert None not in stores and broker.postgres_pid() is None, "the stores ended with it, not before"


def status(broker: Broker, secret: str) -> int:
    token = tokens.issue(secret, subject="test", now=time.time(), ttl=60)
    return int(Http(broker.url, token).call("GET", "/topics").status)


def test_sighup_reloads_the_certificate_or_keeps_the_old_one(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    first, second, third = (trustme.CA().issue_cert("127.0.0.1") for _ in range(3))
    write(cert, first.cert_chain_pems)
    write(key, [first.private_key_pem])
    with Broker(env={"TLS_CERT_FILE": str(cert), "TLS_KEY_FILE": str(key)}) as broker:
        assert shown(broker) == leaf(first)
        write(cert, second.cert_chain_pems)
        write(key, [second.private_key_pem])
        os.kill(broker.pid, signal.SIGHUP)
        wait_until(lambda: shown(broker) == leaf(second), "the new certificate is shown", 15)
        write(cert, third.cert_chain_pems)  # its key is not there
        os.kill(broker.pid, signal.SIGHUP)
        wait_until(lambda: "the certificate stays" in broker.last_words(), "a wrong one is told", 15)
        assert shown(broker) == leaf(second)


def write(file: Path, parts: list[trustme.Blob]) -> None:
    file.write_bytes(b"".join(part.bytes() for part in parts))


def leaf(issued: trustme.LeafCert) -> str:
    return issued.cert_chain_pems[0].bytes().decode().strip()


def shown(broker: Broker) -> str:
    return ssl.get_server_certificate(("127.0.0.1", int(broker.url.rpartition(":")[2])), timeout=10).strip()


def test_a_broker_whose_terminal_is_gone_stops_in_order() -> None:
    """A terminal tells that by SIGHUP, too: nobody sees this broker any more, so it ends, and its stores with it."""
    broker = Broker()
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "mqueue.cli", "broker", "--port", "0", "--metrics-port", "0", "--data-dir", str(broker.data_dir)]
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *command], stdin=theirs, stdout=theirs, stderr=theirs,
        cwd=broker.home, env=broker.environment({}) | {"MQUEUE_LOG_LEVEL": "info"},  # it writes while it stops
    )  # fmt: skip
    try:
        os.close(theirs)
        said = b""
        while b"broker ready" not in said:
            said += os.read(ours, 4096)
        stores = broker.postgres_pid(), broker.valkey_pid()
        os.close(ours)
        assert process.wait(35) == 0
        assert None not in stores and (broker.postgres_pid(), broker.valkey_pid()) == (None, None)
    finally:
        process.kill()
        process.wait()
        broker.close()
