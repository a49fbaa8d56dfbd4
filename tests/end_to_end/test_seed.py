"""The calls a newcomer copies from the README, in its order, with curl: over http and https, on both ports."""

import json
import shutil
import subprocess
import time
from typing import Any

import jwt
import pytest

from tests.processes.broker import Broker
from tests.processes.stores import SECRET

NAME = {"namespace": "default", "topic": "leads"}
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")


@pytest.fixture(
    scope="module",
    params=["http", pytest.param("https", marks=pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing"))],
)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    env = {"JWT_SECRET": SECRET}
    if request.param == "https":
        folder = tmp_path_factory.mktemp("certs")
        key, cert = folder / "key.pem", folder / "cert.pem"
        command = ["openssl", "req", "-x509", "-nodes", "-days", "365", "-newkey", "rsa:2048"]
        subprocess.run([*command, "-keyout", key, "-out", cert, "-subj", "/CN=localhost"], check=True, capture_output=True)
        env |= {"TLS_CERT_FILE": str(cert), "TLS_KEY_FILE": str(key)}
    with Broker(env=env) as broker:
        assert broker.url.startswith(f"{request.param}://")
        assert broker.metrics_url.startswith(f"{request.param}://")
        yield broker


class Curl:
    def __init__(self, url: str) -> None:
        self._url = url
        token = jwt.encode({"sub": "test-user", "exp": 1_930_000_000}, SECRET, algorithm="HS256")
        self._login = ["-H", f"Authorisation: Bearer {token}"]

    def __call__(self, path: str, body: str | None = None, login: bool = True) -> tuple[int, str]:
        """Status and body."""
        more = [] if body is None else ["-X", "POST", "-H", "Content-Type: application/json", "-d", body]
        command = ["curl", "-k", "-s", "-w", "\n%{http_code}", *(self._login if login else []), *more]
        done = subprocess.run([*command, self._url + path], check=True, capture_output=True, text=True, timeout=30)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    def good(self, path: str, body: str | None = None) -> Any:
        status, text = self(path, body)
        assert status == 200, text
        return json.loads(text)

    def dequeue(self) -> list[dict[str, Any]]:
        return self.good("/dequeue?namespace=default&topic=leads&limit=10")

    def dead(self) -> list[dict[str, Any]]:
        return self.good("/dlq?namespace=default&topic=leads&limit=10")


ENQUEUE = """[{
    "namespace": "default",
    "topic": "leads",
    "priority": 1,
    "payload": "eyJuYW1lIjoiSm9obiBEb2UifQ==",  // base64: {"name":"John Doe"}
    "deliver_after": "2025-12-25T10:00:00Z"
  }]"""


def test_the_calls_of_the_readme(broker: Broker) -> None:
    curl = Curl(broker.url)
    status, text = curl("/health", login=False)
    assert (status, text.strip()) == (200, "OK")
    for path, body in (("/dequeue?namespace=default&topic=leads&limit=10", None), ("/enqueue", ENQUEUE), ("/dlq?topic=leads", None)):
        assert curl(path, body, login=False)[0] == 401

    ids = curl.good("/enqueue", ENQUEUE)
    assert len(ids) == 1
    assert isinstance(ids[0], int)
    (message,) = curl.dequeue()
    assert message["id"] == ids[0]
    assert (message["namespace"], message["topic"], message["priority"]) == ("default", "leads", 1)
    assert message["payload"] == "eyJuYW1lIjoiSm9obiBEb2UifQ=="
    assert message["deliver_after"] == "2025-12-25T10:00:00Z"
    assert curl.dequeue() == []  # it is leased

    named = json.dumps(NAME | {"id": ids[0]})
    assert curl.good("/ack", named)["status"] == "ok"
    assert curl.good("/ack", named)["status"] == "gone"  # again: harmless
    assert curl.dequeue() == []

    (failing,) = curl.good("/enqueue", ENQUEUE)
    failed = NAME | {"id": failing, "error": "Processing failed"}
    for attempt in range(1, 5):  # the default is three retries; `retry_after` only shortens the wait
        (message,) = _dequeue_soon(curl)
        assert (message["id"], message["attempt"]) == (failing, attempt)
        assert curl.dead() == []
        assert curl.good("/nack", json.dumps(failed if attempt == 4 else failed | {"retry_after": 0}))["status"] == "ok"
    (dead,) = curl.dead()
    assert (dead["id"], dead["attempts"], dead["error"]) == (failing, 4, "Processing failed")
    assert dead["payload"] == "eyJuYW1lIjoiSm9obiBEb2UifQ=="
    assert curl.dequeue() == []
    assert curl.good("/dlq/delete", json.dumps(NAME | {"id": failing}))["status"] == "ok"
    assert curl.dead() == []

    metrics = Curl(broker.metrics_url)("", login=False)[1]
    assert 'mqueue_shard_health{shard="0"} 1.0' in metrics
    for name in ("mqueue_buffer_queue_depth", "mqueue_ready_queue_depth", "mqueue_enqueue_total", "mqueue_dequeue_total"):
        assert f"\n{name}{{" in metrics


def test_a_nack_without_more_backs_off(broker: Broker) -> None:
    curl = Curl(broker.url)
    (id,) = curl.good("/enqueue", ENQUEUE)
    assert [m["id"] for m in curl.dequeue()] == [id]
    nacked_at = time.monotonic()
    assert curl.good("/nack", json.dumps(NAME | {"id": id, "error": "Processing failed"}))["status"] == "ok"
    assert curl.dequeue() == []
    assert _dequeue_soon(curl)[0]["attempt"] == 2
    assert time.monotonic() - nacked_at >= 0.7  # a second, at most a quarter shorter


def _dequeue_soon(curl: Curl) -> list[dict[str, Any]]:
    return curl.good("/dequeue?namespace=default&topic=leads&limit=10&wait=5")
