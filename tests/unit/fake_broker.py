"""The HTTP API over a dict, for tests of clients and workers: leases, receipts, retries, both codecs, and failures on demand.

It runs on a loop in a thread of its own, so that a test may block its loop. `start()` gives a broker to talk to: this one, or the
real one that MQUEUE_TEST_URL and MQUEUE_TEST_TOKEN name (tests that need the fake's insides skip then).
"""

import asyncio
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest
from aiohttp import web

from mqueue import wire

TOKEN = "fake-token"
LEASE_S = 30.0
MAX_RETRIES = 3


@dataclass
class Stored:
    id: int
    item: wire.EnqueueItem
    due: float
    attempts: int = 0
    receipt: str | None = None
    lease: float = LEASE_S
    lease_until: float = 0.0
    dead: bool = False
    error: str | None = None

    @property
    def leased(self) -> bool:
        return self.receipt is not None and self.lease_until > time.time()


@dataclass
class Refusal:
    path: str
    times: int
    status: int
    code: str
    retry_after: float | None
    after_work: bool  # the request is carried out, and then the connection cut


@dataclass
class FakeBroker:
    url: str = ""
    token: str = TOKEN
    messages: dict[int, Stored] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    results: dict[int, bytes] = field(default_factory=dict)
    told: list[wire.Worker] = field(default_factory=list)
    result_max: int = 1 << 20
    request_keys: dict[str, list[int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    polls: list[wire.Poll] = field(default_factory=list)
    extends: list[wire.ExtendItem] = field(default_factory=list)
    settled: list[wire.PollSettle] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    cancels: list[tuple[int, str]] = field(default_factory=list)  # of running messages: id, namespace
    schedules: list[tuple[str, wire.ScheduleItem]] = field(default_factory=list)  # as they were put
    waiting: int = 0
    ended: set[str | None] = field(default_factory=set)  # polls that need not wait
    answer_late_s: float = 0.0
    held: str | None = None  # requests to this path are answered later
    mode: Literal["hot", "cold", "apart", "recovering"] = "hot"
    hide_clock_s: float = 0.0  # what it adds to the times it tells
    _last_id: int = 1 << 60
    _receipts: int = 0

    # ── what tests ask for ──

    def refuse(self, path: str, times: int = 1, status: int = 503, code: str = "unavailable", retry_after: float | None = None) -> None:
        self.refusals.append(Refusal(path, times, status, code, retry_after, False))

    def cut_after_work(self, path: str, times: int = 1) -> None:
        self.refusals.append(Refusal(path, times, 0, "", None, True))

    def be_late(self, seconds: float) -> None:
        self.answer_late_s = seconds

    def hold(self, path: str | None) -> None:
        """None: those that were held are answered."""
        self.held = path

    def shift_clock(self, seconds: float) -> None:
        self.hide_clock_s = seconds

    def live(self) -> list[Stored]:
        return [s for s in self.messages.values() if not s.dead]

    def dead(self) -> list[Stored]:
        return [s for s in self.messages.values() if s.dead]

    def steal(self, id: int) -> None:
        """Give the lease to another."""
        self.messages[id].receipt = "another"
        self.messages[id].lease_until = time.time() + 60

    # ── the queue ──

    def enqueue(self, items: list[wire.EnqueueItem]) -> list[int]:
        ids = []
        for item in items:
            key = item.idempotency_key
            if key is not None and key in self.keys:
                ids.append(self.keys[key])
                continue
            self._last_id += 1
            due = item.deliver_after.timestamp() if item.deliver_after else time.time() + (item.delay or 0)
            self.messages[self._last_id] = Stored(self._last_id, item, due, lease=item.lease or LEASE_S)
            if key is not None:
                self.keys[key] = self._last_id
            ids.append(self._last_id)
        return ids

    def fetch(self, namespace: str, topics: list[str], limit: int, lease: float | None) -> list[wire.Message]:
        now = time.time()
        ready = [
            s for s in self.live() if s.item.namespace == namespace and s.item.topic in topics and s.due <= now and not self._expire(s).leased
        ]
        ready.sort(key=lambda s: (s.item.priority, s.due, s.id))
        return [self._lease(s, lease or s.lease) for s in ready[:limit]]

    def _expire(self, s: Stored) -> Stored:
        if s.receipt is not None and not s.leased:
            s.receipt, s.attempts = None, s.attempts + 1
        return s

    def _lease(self, s: Stored, lease: float) -> wire.Message:
        self._receipts += 1
        s.receipt, s.lease_until = f"1-{self._receipts}", time.time() + lease
        return wire.Message(
            id=s.id,
            namespace=s.item.namespace,
            topic=s.item.topic,
            priority=s.item.priority,
            payload=s.item.payload,
            metadata=s.item.metadata,
            deliver_after=moment(s.due),
            created_at=moment(s.due),
            attempt=s.attempts + 1,
            max_retries=MAX_RETRIES if s.item.max_retries is None else s.item.max_retries,
            receipt=s.receipt,
            lease_expires_at=moment(s.lease_until + self.hide_clock_s),
            lease=lease,
        )

    def settle(self, kind: str, item: wire.SettleItem) -> wire.Verdict:
        s = self.messages.get(item.id)
        if s is None or s.dead:
            if s is None and item.result is not None:
                self.results.setdefault(item.id, item.result)
            return wire.Verdict(item.id, "gone")
        if item.receipt is not None and (item.receipt != s.receipt or not s.leased):
            return wire.Verdict(item.id, "stale")
        s.receipt = None
        if kind in ("ack", "cancel"):
            if kind == "ack" and item.result is not None:
                self.results[item.id] = item.result
            del self.messages[item.id]
        elif kind in ("nack", "bury"):
            s.attempts, s.error = s.attempts + 1, item.error
            limit = MAX_RETRIES if s.item.max_retries is None else s.item.max_retries
            s.dead = kind == "bury" or s.attempts > limit
            s.due = time.time() + (item.retry_after if item.retry_after is not None else 0.02)
        elif item.retry_after:
            s.due = time.time() + item.retry_after
        return wire.Verdict(item.id, "ok")

    def extend(self, item: wire.ExtendItem) -> wire.Verdict:
        s = self.messages.get(item.id)
        if s is None:
            return wire.Verdict(item.id, "gone")
        if item.receipt is not None and (item.receipt != s.receipt or not s.leased):
            return wire.Verdict(item.id, "stale")
        s.lease_until = time.time() + (item.lease or s.lease)
        return wire.Verdict(item.id, "ok")

    def cancel(self, id: int) -> wire.Cancel:
        s = self.messages.get(id)
        if s is None or s.dead:
            return wire.Cancel(id, "gone")
        if s.leased:
            self.cancels.append((id, s.item.namespace))
            return wire.Cancel(id, "cancelling")
        del self.messages[id]
        return wire.Cancel(id, "cancelled")

    # ── HTTP ──

    async def on_enqueue(self, request: web.Request) -> web.StreamResponse:
        items = decode(request, await request.read(), list[wire.EnqueueItem])
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return reply(request, self.enqueue(items))
        if key not in self.request_keys:
            self.request_keys[key] = self.enqueue(items)
        return reply(request, self.request_keys[key])

    async def on_poll(self, request: web.Request) -> web.StreamResponse:
        poll = decode(request, await request.read(), wire.Poll)
        self.polls.append(poll)
        if any(len(item.result or b"") > self.result_max for item in poll.settle):
            return problem(413, "too-large", f"a result may have {self.result_max} bytes")
        self.settled += poll.settle
        self.ended |= set(poll.end)
        verdicts = [self.settle(item.kind, item) for item in poll.settle]
        return reply(request, wire.Polled(verdicts, await self._fetch_waiting(poll)))

    async def on_dequeue(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        poll = wire.Poll(
            namespace=query.get("namespace", "default"),
            topics=query.getall("topic"),
            limit=int(query.get("limit", "10")),
            wait=float(query.get("wait", "0")),
            lease=float(query["lease"]) if "lease" in query else None,
        )
        return reply(request, await self._fetch_waiting(poll))

    async def _fetch_waiting(self, poll: wire.Poll) -> list[wire.Message]:
        if poll.limit == 0:
            return []
        until = time.monotonic() + poll.wait
        self.waiting += 1 if poll.wait else 0
        try:
            while (
                not (found := self.fetch(poll.namespace, poll.topics, poll.limit, poll.lease))
                and time.monotonic() < until
                and poll.name not in self.ended
            ):
                await asyncio.sleep(0.002)
            return found
        finally:
            self.waiting -= 1 if poll.wait else 0

    async def on_settle(self, request: web.Request) -> web.StreamResponse:
        items = decode(request, await request.read(), list[wire.SettleItem])
        return reply(request, [self.settle(request.path[1:], item) for item in items])

    async def on_extend(self, request: web.Request) -> web.StreamResponse:
        items = decode(request, await request.read(), list[wire.ExtendItem])
        self.extends += items
        return reply(request, [self.extend(item) for item in items])

    async def on_dlq(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        found = [
            wire.DeadItem(
                id=s.id,
                namespace=s.item.namespace,
                topic=s.item.topic,
                priority=s.item.priority,
                payload=s.item.payload,
                attempts=s.attempts,
                created_at=moment(s.due),
                died_at=moment(s.due),
                error=s.error,
                metadata=s.item.metadata,
            )
            for s in self.dead()
            if s.item.topic == query["topic"] and s.item.namespace == query["namespace"] and s.id > int(query.get("after", "0"))
        ]
        return reply(request, found[: int(query.get("limit", "100"))])

    async def on_dlq_delete(self, request: web.Request) -> web.StreamResponse:
        items = decode(request, await request.read(), list[wire.DeadId])
        gone = [self.messages.pop(i.id, None) is None for i in items]
        return reply(request, [wire.Verdict(i.id, "gone" if g else "ok") for i, g in zip(items, gone, strict=True)])

    async def on_topics(self, request: web.Request) -> web.StreamResponse:
        counts = Counter((s.item.namespace, s.item.topic) for s in self.live())
        wanted = request.query.get("namespace")
        return reply(
            request,
            [
                wire.Topic(namespace=n, topic=t, shard=0, ready=c, delayed=0, leased=0, waiting=0, dead=0)
                for (n, t), c in counts.items()
                if wanted in (None, n)
            ],
        )

    async def on_workers(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            self.told.append(decode(request, await request.read(), wire.Worker))
            return web.Response(text="OK")
        return reply(request, self.told[-1:])

    async def on_message(self, request: web.Request) -> web.StreamResponse:
        s = self.messages.get(int(request.match_info["id"]))
        if s is None and (id := int(request.match_info["id"])) in self.results:
            times = {"created_at": moment(0), "deliver_after": moment(0)}
            return reply(
                request, wire.Status(id=id, namespace="", topic="", state="done", priority=0, attempts=0, max_retries=0, payload=b"", **times)
            )
        if s is None:
            return problem(404, "not-found", "no such message")
        state = "dead" if s.dead else "leased" if s.leased else "ready"
        return reply(
            request,
            wire.Status(
                id=s.id,
                namespace=s.item.namespace,
                topic=s.item.topic,
                state=state,  # type: ignore[arg-type]
                priority=s.item.priority,
                attempts=s.attempts,
                max_retries=MAX_RETRIES,
                payload=s.item.payload,
                deliver_after=moment(s.due),
                created_at=moment(s.due),
            ),
        )

    async def on_cancel(self, request: web.Request) -> web.StreamResponse:
        return reply(request, self.cancel(int(request.match_info["id"])))

    async def on_cancelled(self, request: web.Request) -> web.StreamResponse:
        asked = decode(request, await request.read(), wire.WaitCancelled)
        begin, until = int(asked.since or 0), time.monotonic() + asked.wait
        while not (ids := [id for id, namespace in self.cancels[begin:] if namespace in asked.namespaces]) and time.monotonic() < until:
            await asyncio.sleep(0.002)
        return reply(request, wire.Cancelled(str(len(self.cancels)), ids))

    async def on_ready(self, request: web.Request) -> web.StreamResponse:
        shard = wire.ShardReady(shard=0, mode=self.mode, redis="ok", postgres="ok", wal="ok")
        serves = self.mode in ("hot", "cold")
        answer = reply(request, wire.Ready(status="ready" if serves else "not-ready", shards=[shard]))
        answer.set_status(200 if serves else 503)
        return answer

    async def on_result(self, request: web.Request) -> web.StreamResponse:
        id, until = int(request.match_info["id"]), time.monotonic() + float(request.query.get("wait", "0"))
        self.waiting += 1
        try:
            while id not in self.results and (s := self.messages.get(id)) is not None and not s.dead and time.monotonic() < until:
                await asyncio.sleep(0.002)
        finally:
            self.waiting -= 1
        if id in self.results:
            return reply(request, wire.Result(id=id, value=self.results[id]))
        if (s := self.messages.get(id)) is None:
            return problem(404, "not-found", "no message and no result")
        return problem(410, "dead-letter", s.error or "") if s.dead else problem(404, "pending", "the message is ready")

    async def on_put_schedule(self, request: web.Request) -> web.StreamResponse:
        name, item = request.match_info["name"], decode(request, await request.read(), wire.ScheduleItem)
        self.schedules.append((name, item))
        known = wire.Schedule(
            name=name, namespace=item.namespace, topic=item.topic, timezone=item.timezone, catch_up=item.catch_up, priority=item.priority,
            paused=False,
        )  # fmt: skip
        return reply(request, known)

    async def on_health(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="OK")

    @web.middleware
    async def gate(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        self.requests[request.path] += 1
        if request.path not in ("/health", "/ready") and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthorized", "token missing or not valid")
        refusal = next((r for r in self.refusals if r.path == request.path and r.times), None)
        if refusal is not None:
            refusal.times -= 1
            if refusal.after_work:
                await handler(request)
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            return problem(refusal.status, refusal.code, "refused on demand", refusal.retry_after)
        while self.held == request.path:
            await asyncio.sleep(0.002)
        if self.answer_late_s:
            await asyncio.sleep(self.answer_late_s)
        try:
            answer: web.StreamResponse = await handler(request)
        except msgspec.ValidationError as error:
            item = re.search(r"\$\[(\d+)\]", str(error))
            return problem(400, "invalid", str(error), item=int(item[1]) if item else None)
        return answer

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.gate], client_max_size=8 * 1024 * 1024)
        app.router.add_post("/enqueue", self.on_enqueue)
        app.router.add_post("/poll", self.on_poll)
        app.router.add_get("/dequeue", self.on_dequeue)
        app.router.add_post("/ack", self.on_settle)
        app.router.add_post("/nack", self.on_settle)
        app.router.add_post("/extend", self.on_extend)
        app.router.add_get("/dlq", self.on_dlq)
        app.router.add_post("/dlq/delete", self.on_dlq_delete)
        app.router.add_get("/topics", self.on_topics)
        app.router.add_post("/workers", self.on_workers)
        app.router.add_get("/workers", self.on_workers)
        app.router.add_get("/messages/{id}", self.on_message)
        app.router.add_post("/messages/{id}/cancel", self.on_cancel)
        app.router.add_post("/cancelled", self.on_cancelled)
        app.router.add_get("/messages/{id}/result", self.on_result)
        app.router.add_put("/schedules/{name}", self.on_put_schedule)
        app.router.add_get("/health", self.on_health)
        app.router.add_get("/ready", self.on_ready)
        return app


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def decode(request: web.Request, body: bytes, kind: Any) -> Any:
    codec = msgspec.msgpack if request.content_type == "application/msgpack" else msgspec.json
    return codec.decode(body, type=kind)


def reply(request: web.Request, value: Any) -> web.Response:
    if request.headers.get("Accept") == "application/msgpack":
        return web.Response(body=msgspec.msgpack.encode(value), content_type="application/msgpack")
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def problem(status: int, code: str, detail: str, retry_after: float | None = None, item: int | None = None) -> web.Response:
    document = wire.Problem(title=code, status=status, code=code, detail=detail, item=item)
    headers = {"Retry-After": f"{retry_after:.0f}"} if retry_after is not None else {}
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/problem+json", headers=headers)


class Server:
    """The fake on a port of 127.0.0.1; it can go down and come back on the same port."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def up(self) -> None:
        asyncio.run_coroutine_threadsafe(self._up(), self._loop).result(10)

    def down(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)

    def close(self) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _up(self) -> None:
        self._runner = web.AppRunner(self._broker.app(), shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self._broker.url = f"http://127.0.0.1:{self._port}"


@dataclass
class Real:
    """Another broker: its address, and nothing to look into."""

    url: str
    token: str

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"needs the fake broker ({name})")


@contextmanager
def start() -> Iterator[FakeBroker]:
    if url := os.environ.get("MQUEUE_TEST_URL"):
        yield Real(url, os.environ["MQUEUE_TEST_TOKEN"])  # type: ignore[misc]
        return
    broker = FakeBroker()
    broker.server = server = Server(broker)  # type: ignore[attr-defined]
    server.up()
    try:
        yield broker
    finally:
        server.close()
