"""The README's curl calls, as they stand there but for the address and the token."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from http_fake import DEADLINE_S, Broker, broker, token

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture
async def b(tmp_path: Path) -> AsyncIterator[Broker]:
    issued = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    async with broker(tls=(cert, key)) as running:
        yield running


async def shell(b: Broker, command: str) -> str:
    command = command.replace("https://localhost:8080", b.server.url).replace("YOUR_JWT", token()).replace("curl -k", "curl -ksS")
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert (process.returncode, err) == (0, b"")
    return out.decode()


async def test_health(b: Broker) -> None:
    assert await shell(b, "curl -k https://localhost:8080/health") == "OK"


async def test_enqueue_with_its_comment(b: Broker) -> None:
    ids = await shell(
        b,
        r"""curl -k -X POST https://localhost:8080/enqueue \
  -H "Authorisation: Bearer YOUR_JWT" \
  -H "Content-Type: application/json" \
  -d '[{
    "namespace": "default",
    "topic": "leads",
    "priority": 1,
    "payload": "eyJuYW1lIjoiSm9obiBEb2UifQ==",  // base64: {"name":"John Doe"}
    "deliver_after": "2025-12-25T10:00:00Z"
  }]'
""",
    )
    assert json.loads(ids) == [2**62]
    [message] = b.engine.calls[0][1]
    assert (message.payload, message.priority) == (b'{"name":"John Doe"}', 1)


async def test_dequeue(b: Broker) -> None:
    out = await shell(
        b,
        r"""curl -k "https://localhost:8080/dequeue?namespace=default&topic=leads&limit=10" \
  -H "Authorisation: Bearer YOUR_JWT"
""",
    )
    assert [message["topic"] for message in json.loads(out)] == ["leads"]


@pytest.mark.parametrize(("path", "more"), [("ack", ""), ("nack", ',\n    "error": "Processing failed"'), ("dlq/delete", "")])
@pytest.mark.parametrize(
    "kind",
    [
        r'-H "Content-Type: application/json" \
  ',
        "",
    ],
    ids=["json", "form"],
)
async def test_settles(b: Broker, path: str, more: str, kind: str) -> None:
    out = await shell(
        b,
        rf"""curl -k -X POST https://localhost:8080/{path} \
  -H "Authorisation: Bearer YOUR_JWT" \
  {kind}-d '{{
    "id": 123456789012345678,
    "namespace": "default",
    "topic": "leads"{more}
  }}'
""",
    )
    assert json.loads(out)["id"] == 123456789012345678


async def test_dlq(b: Broker) -> None:
    out = await shell(
        b,
        r"""curl -k "https://localhost:8080/dlq?namespace=default&topic=leads&limit=10" \
  -H "Authorisation: Bearer YOUR_JWT"
""",
    )
    assert json.loads(out)[0]["error"] == "Processing failed"
