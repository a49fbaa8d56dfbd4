"""An engine that records what it is asked and answers what a test put there, and a running server around it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt

from mqueue.broker.engine.schedules import declaration, replaced, resumed
from mqueue.broker.http import Authenticator, HttpServer, Quotas, api
from mqueue.broker.metrics import Metrics
from mqueue.clock import SystemClock
from mqueue.errors import NotFound
from mqueue.message import Accepted, DeadLetter, Delivery, Durability, MessageStatus, Readiness, ResultLook, TopicStats
from mqueue.schedule import Schedule

SECRET = "a secret of thirty-two characters or more"
DEADLINE_S = 10

DELIVERY = Delivery(
    id=123456789012345678,
    namespace="default",
    topic="leads",
    priority=1,
    payload=b'{"name":"John Doe"}',
    metadata=b'{"trace":"x","n":[1,2.5]}',
    deliver_after_us=1_766_656_800_000_001,
    created_at_us=1_766_656_799_999_999,
    attempt=1,
    max_retries=3,
    receipt="7-2a",
    lease_expires_at_us=1_766_656_830_000_000,
    lease_us=30_000_000,
)
DEAD = DeadLetter(9, "default", "leads", 0, b"x", None, 4, "Processing failed", 1_000_000, 2_000_000)
STATUS = MessageStatus(5, "default", "leads", "ready", 0, 0, 3, b"x", None, 1_000_000, 1_000_000)
STATS = TopicStats("default", "leads", 0, 1, 2, 3, 4, 5, {"enqueued": 9})


class FakeSchedules:
    """In a dict; what becomes of one, the real functions decide."""

    def __init__(self, engine: "FakeEngine") -> None:
        self._engine = engine
        self.kept: dict[tuple[str, str], Schedule] = {}
        self.now_us = 1_766_656_800_000_000

    async def page(self, namespace: str, after: str, limit: int) -> list[Schedule]:
        self._engine._called("schedules", (namespace, after, limit))
        found = sorted(s for s in self.kept.values() if s.namespace == namespace and s.name > after)
        return [s._replace(payload=b"") for s in found[:limit]]

    async def find(self, namespace: str, name: str) -> Schedule:
        self._engine._called("schedule", (namespace, name))
        if (namespace, name) not in self.kept:
            raise NotFound(f"no schedule {name}")
        return self.kept[namespace, name]

    async def put(self, wanted: Schedule, *, declares: bool) -> Schedule:
        self._engine._called("put", (wanted.namespace, wanted.name, declares))
        place = wanted.namespace, wanted.name
        self.kept[place] = replaced(self.kept.get(place), wanted, declaration(wanted) if declares else None, self.now_us)
        return self.kept[place]

    async def pause(self, namespace: str, name: str) -> Schedule:
        self.kept[namespace, name] = (await self.find(namespace, name))._replace(paused=True)
        return self.kept[namespace, name]

    async def resume(self, namespace: str, name: str) -> Schedule:
        self.kept[namespace, name] = resumed(await self.find(namespace, name), self.now_us)
        return self.kept[namespace, name]

    async def run(self, namespace: str, name: str, key: Any) -> int:
        await self.find(namespace, name)
        self._engine._called("run", key)
        return 2**62

    async def delete(self, namespace: str, name: str) -> bool:
        self._engine._called("delete", (namespace, name))
        return self.kept.pop((namespace, name), None) is not None


class FakeEngine:
    def __init__(self) -> None:
        self.schedules = FakeSchedules(self)
        self.asks: list[Any] = []  # what each fetch was given to talk with
        self.calls: list[tuple[str, Any]] = []
        self.fails: Exception | None = None
        self.verdict: str = "ok"
        self.deliveries: list[Delivery] = [DELIVERY]
        self.dead: list[DeadLetter] = [DEAD]
        self.status: MessageStatus | None = STATUS
        self.look: ResultLook | None = ResultLook("done", b"[1]")
        self.told: list[tuple[str, int]] = []
        self.health = {0: True, 1: True}
        self.waits = False
        self.waiting = asyncio.Event()  # a fetch waits
        self.cancelled = asyncio.Event()  # … and was cancelled

    def _called(self, name: str, what: Any) -> None:
        self.calls.append((name, what))
        if self.fails is not None:
            raise self.fails

    async def enqueue(self, messages: Sequence[Any], key: Any = None, durability: Durability = "wal") -> Accepted:
        self._called("enqueue", list(messages) if key is None else (list(messages), key))
        return Accepted([2**62 + n for n in range(len(messages))], durability)

    async def fetch(
        self, namespace: str, topics: Sequence[str], limit: int, wait: float = 0.0, lease: float | None = None, asks: Any = None
    ) -> Any:
        self._called("fetch", (namespace, list(topics), limit, wait, lease))
        self.asks.append(asks)
        if self.waits:
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return self.deliveries[:limit]

    async def settle(self, settles: Sequence[Any]) -> Any:
        self._called("settle", list(settles))
        return [self.verdict] * len(settles)

    async def extend(self, extends: Sequence[Any]) -> Any:
        self._called("extend", list(extends))
        return [self.verdict] * len(extends)

    async def cancel(self, id: int, namespaces: Any) -> Any:
        self._called("cancel", (id, namespaces))
        return "cancelling"

    async def wait_cancelled(self, namespaces: Sequence[str], since: str | None, seconds: float) -> tuple[str, list[int]]:
        self._called("wait_cancelled", (list(namespaces), since, seconds))
        if self.waits:
            self.waiting.set()
            await asyncio.Event().wait()
        return "7-2", [2**62]

    async def dead_letters(self, namespace: str, topic: str, limit: int, after: int = 0) -> list[DeadLetter]:
        self._called("dead_letters", (namespace, topic, limit, after))
        return self.dead

    async def delete_dead(self, namespace: str, topic: str, ids: Sequence[int]) -> Any:
        self._called("delete_dead", (namespace, topic, list(ids)))
        return ["ok" if id % 2 else "gone" for id in ids]

    async def topics(self, namespaces: Sequence[str] | None, missing: set[int] | None = None) -> list[TopicStats]:
        self._called("topics", namespaces)
        return [STATS]

    async def message(self, id: int, namespaces: Any = None, name: Any = None) -> MessageStatus | None:
        self._called("message", id)
        return self.status if self.status is None or namespaces is None or self.status.namespace in namespaces else None

    async def result(self, id: int, name: Any, wait: float = 0.0, namespaces: Any = None) -> ResultLook | None:
        self._called("result", (id, name, wait, namespaces))
        if self.waits:
            self.waiting.set()
            await asyncio.Event().wait()
        return self.look

    async def hear_worker(self, report: Any, *, stopped: bool = False) -> None:
        self._called("hear_worker", (report, stopped))

    async def workers(self, namespaces: Sequence[str] | None) -> list[tuple[str, int]]:
        self._called("workers", namespaces)
        return self.told

    def readiness(self) -> list[Readiness]:
        return [Readiness(shard, up, "hot", "ok", True, "ok" if up else "full") for shard, up in self.health.items()]


def token(secret: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": "test-user", "exp": int(time.time()) + 3600} | claims, secret, algorithm="HS256")


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


class Broker:
    """A server over a fake engine, and a client that carries a token."""

    def __init__(self, engine: FakeEngine, metrics: Metrics, server: HttpServer, http: aiohttp.ClientSession) -> None:
        self.engine = engine
        self.metrics = metrics
        self.server = server
        self.http = http

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any, Any]:
        """Status, decoded JSON (or text), headers."""
        options.setdefault("headers", bearer())
        if body is not None:
            options["json"] = body
        async with self.http.request(method, self.server.url + path, **options) as response:
            decoded = await response.json(content_type=None) if "json" in response.content_type else await response.read()
            return response.status, decoded, response.headers

    async def get(self, path: str, **options: Any) -> tuple[int, Any, Any]:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any, Any]:
        return await self.ask("POST", path, body, **options)


@asynccontextmanager
async def broker(quotas: dict[str, int] | None = None, host: str = "127.0.0.1", **server_options: Any) -> AsyncIterator[Broker]:
    engine, metrics, clock = FakeEngine(), Metrics(), SystemClock()
    application = api(engine, Authenticator(SECRET, clock), Quotas(quotas or {}, "async+memory://"), metrics)
    server = HttpServer(application, host, 0, **server_options)
    await server.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as http:
            yield Broker(engine, metrics, server, http)
    finally:
        await server.stop(grace=2)


async def connect(b: Broker) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = b.server.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def head(path: str, method: str = "GET", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in (bearer() | headers).items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(DEADLINE_S):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if line)}
        return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def ends(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        return await reader.read()
