"""The API as any HTTP client sees it: JSON over the standard library, nothing of mqueue's own client."""

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Any
    body: Any


class Http:
    def __init__(self, url: str, token: str, topic: str = "work", namespace: str = "default") -> None:
        self.url, self.token = url, token
        self.name = {"namespace": namespace, "topic": topic}

    def call(
        self, method: str, path: str, body: Any = None, query: Any = None, timeout: float = 30.0, headers: dict[str, str] | None = None
    ) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(f"{self.url}{path}" + (f"?{urlencode(query)}" if query else ""), data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return Reply(reply.status, reply.headers, _read(reply.read()))
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, _read(error.read()))

    def put(self, *payloads: bytes, **options: Any) -> list[int]:
        """Enqueues messages with these payloads; their ids."""
        items = [{**self.name, "payload": base64.b64encode(p).decode(), **options} for p in payloads or (b"x",)]
        return self.good(self.call("POST", "/enqueue", items))

    def get(self, limit: int = 10, **query: Any) -> list[dict[str, Any]]:
        wait = float(query.get("wait", 0))
        return self.good(self.call("GET", "/dequeue", query={**self.name, "limit": limit, **query}, timeout=30 + wait))

    def ack(self, message: dict[str, Any], **options: Any) -> Reply:
        return self.settle("/ack", message, **options)

    def nack(self, message: dict[str, Any], **options: Any) -> Reply:
        return self.settle("/nack", message, **options)

    def settle(self, path: str, message: dict[str, Any], **options: Any) -> Reply:
        return self.call("POST", path, {**self.name, "id": message["id"], "receipt": message["receipt"], **options})

    def dead(self, limit: int = 100) -> list[dict[str, Any]]:
        return self.good(self.call("GET", "/dlq", query={**self.name, "limit": limit}))

    def status(self, id: int) -> Reply:
        return self.call("GET", f"/messages/{id}")

    def stats(self) -> dict[str, Any]:
        topics = self.good(self.call("GET", "/topics", query={"namespace": self.name["namespace"]}))
        return next(t for t in topics if t["topic"] == self.name["topic"])

    @staticmethod
    def good(reply: Reply) -> Any:
        assert reply.status == 200, reply
        return reply.body


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
