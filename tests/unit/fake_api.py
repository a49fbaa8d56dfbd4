"""The HTTP API of the fake broker: routes, both codecs, calls that wait, and the faults that a test has asked for."""

import asyncio
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from aiohttp import web

from mqueue import message as m
from mqueue import wire
from mqueue.errors import Invalid, MQueueError, NotFound, Pending, TooLarge, Unauthorized

if TYPE_CHECKING:
    from fake_broker import FakeBroker

T = TypeVar("T")


class Server:
    """On a port of 127.0.0.1; it can go down and come back on the same port. A bell there wakes all who wait."""

    def __init__(self, broker: "FakeBroker") -> None:
        self.url = ""
        self._broker = broker
        self._port = 0
        self._bell = asyncio.Event()
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

    def ring(self) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._ring)

    async def rung(self, seconds: float) -> None:
        """Returns when it is rung, or after so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), seconds)

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    async def _up(self) -> None:
        self._runner = web.AppRunner(Api(self._broker, self.rung).app(), shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"


class Api:
    """`rung`: waits until the broker has changed, or so many seconds."""

    def __init__(self, broker: "FakeBroker", rung: Callable[[float], Any]) -> None:
        self._broker = broker
        self._rung = rung

    def app(self) -> web.Application:
        routes: list[tuple[str, str, Callable[[web.Request], Any]]] = [
            ("POST", "/enqueue", self.enqueue),
            ("POST", "/poll", self.poll),
            ("GET", "/dequeue", self.dequeue),
            ("POST", "/ack", self.settle),
            ("POST", "/nack", self.settle),
            ("POST", "/extend", self.extend),
            ("GET", "/dlq", self.dead_letters),
            ("POST", "/dlq/delete", self.delete_dead),
            ("GET", "/topics", self.topics),
            ("POST", "/workers", self.tell),
            ("GET", "/workers", self.workers),
            ("GET", "/messages/{id}", self.message),
            ("POST", "/messages/{id}/cancel", self.cancel),
            ("POST", "/cancelled", self.cancelled),
            ("GET", "/messages/{id}/result", self.result),
            ("PUT", "/schedules/{name}", self.put_schedule),
            ("GET", "/health", self.health),
            ("GET", "/ready", self.ready),
        ]
        app = web.Application(middlewares=[self.gate], client_max_size=m.BODY_MAX)
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
        return app

    @web.middleware
    async def gate(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        """Faults; and what a route returns or raises becomes an answer."""
        broker = self._broker
        broker.requests[request.path] += 1
        if request.path not in ("/health", "/ready") and request.headers.get("Authorization") != f"Bearer {broker.token}":
            return problem(Unauthorized.status, Unauthorized.code, "token missing or not valid")
        refusal = next((r for r in broker.refusals if r.path == request.path and r.times), None)
        if refusal is not None:
            refusal.times -= 1
            if refusal.after_work:
                await handler(request)
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            return problem(refusal.status, refusal.code, "refused on demand", refusal.retry_after)
        await self._wait(float("inf"), lambda: broker.held != request.path)
        if broker.late_s:
            await asyncio.sleep(broker.late_s)  # on demand
        try:
            answer = await handler(request)
        except MQueueError as error:
            return problem(error.status, error.code, error.detail, error.retry_after, error.item)
        return answer if isinstance(answer, web.StreamResponse) else reply(request, answer)

    async def _wait(self, seconds: float, look: Callable[[], T], enough: Callable[[], bool] = lambda: False) -> T:
        """What it finds: as soon as that is something, or it is enough, or the time is over."""
        until = time.monotonic() + seconds
        while not (found := look()) and not enough() and (left := until - time.monotonic()) > 0:
            await self._rung(min(left, self._next_s()))
        return found

    def _next_s(self) -> float:
        """Until time alone brings a message."""
        now = self._broker.clock.wall_us()
        return min((s.comes_us - now for s in self._broker.live() if s.comes_us > now), default=m.WAIT_MAX_S * 1e6) / 1e6

    # ── the hot routes ──

    async def enqueue(self, request: web.Request) -> list[int]:
        items = await decoded(request, list[wire.EnqueueItem])
        key, known = request.headers.get("Idempotency-Key"), self._broker.request_keys
        if key is None:
            return self._broker.enqueue(items)
        if key not in known:
            known[key] = self._broker.enqueue(items)
        return known[key]

    async def poll(self, request: web.Request) -> wire.Polled:
        poll, broker = await decoded(request, wire.Poll), self._broker
        broker.polls.append(poll)
        if any(len(item.result or b"") > broker.result_max for item in poll.settle):
            raise TooLarge(f"a result may have {broker.result_max} bytes")
        broker.settled += poll.settle
        broker.ended |= set() if broker.deaf else set(poll.end)
        verdicts = broker.settle([(item.kind, item) for item in poll.settle])  # and whoever waits looks again
        return wire.Polled(verdicts, await self._fetch(poll))

    async def dequeue(self, request: web.Request) -> list[wire.Message]:
        query = {**request.query, "topics": request.query.getall("topic")}
        del query["topic"]
        return await self._fetch(msgspec.convert(query, wire.Poll, strict=False))

    async def _fetch(self, poll: wire.Poll) -> list[wire.Message]:
        if poll.limit == 0:
            return []

        def look() -> list[wire.Message]:
            with self._broker.looking() as memory:
                return memory.fetch(poll.topics, namespace=poll.namespace, limit=poll.limit, lease=poll.lease)

        self._broker.waiting += poll.wait > 0
        try:
            return await self._wait(poll.wait, look, lambda: poll.name in self._broker.ended)
        finally:
            self._broker.waiting -= poll.wait > 0

    async def settle(self, request: web.Request) -> list[wire.Verdict]:
        kind: Any = request.path[1:]
        return self._broker.settle([(kind, item) for item in await decoded(request, list[wire.SettleItem])])

    async def extend(self, request: web.Request) -> list[wire.Verdict]:
        items = await decoded(request, list[wire.ExtendItem])
        self._broker.extends += items
        with self._broker.changing() as memory:
            return memory.extend(items)

    # ── the others ──

    async def dead_letters(self, request: web.Request) -> list[wire.DeadItem]:
        query = request.query
        with self._broker.looking() as memory:
            return memory.dead_letters(query["topic"], namespace=query["namespace"], limit=int(query["limit"]), after=int(query["after"]))

    async def delete_dead(self, request: web.Request) -> list[wire.Verdict]:
        items = await decoded(request, list[wire.DeadId])
        with self._broker.changing() as memory:
            return [verdict for item in items for verdict in memory.delete_dead(item.topic, [item.id], namespace=item.namespace)]

    async def topics(self, request: web.Request) -> list[wire.Topic]:
        with self._broker.looking() as memory:
            return memory.topics(request.query.get("namespace"))

    async def tell(self, request: web.Request) -> str:
        self._broker.told.append(await decoded(request, wire.Worker))
        return "OK"

    async def workers(self, request: web.Request) -> list[wire.Worker]:
        return self._broker.told[-1:]

    async def message(self, request: web.Request) -> wire.Status:
        id = int(request.match_info["id"])
        with self._broker.looking() as memory:
            found = memory.message(id)
        if found is None:
            raise NotFound(f"no message {id}")
        return found

    async def cancel(self, request: web.Request) -> wire.Cancel:
        return self._broker.cancel(int(request.match_info["id"]))

    async def cancelled(self, request: web.Request) -> wire.Cancelled:
        asked, cancels = await decoded(request, wire.WaitCancelled), self._broker.cancels
        begin = end = int(asked.since or 0)

        def look() -> list[int]:
            nonlocal end
            end = len(cancels)
            return [id for id, namespace in cancels[begin:end] if namespace in asked.namespaces]

        ids = await self._wait(asked.wait, look)
        return wire.Cancelled(str(end), ids)

    async def result(self, request: web.Request) -> wire.Result:
        id = int(request.match_info["id"])

        def look() -> bytes | None:
            with suppress(Pending):
                return self._broker.result(id)
            return None

        value = await self._wait(float(request.query.get("wait", "0")), look)
        return wire.Result(id=id, value=self._broker.result(id) if value is None else value)

    async def put_schedule(self, request: web.Request) -> wire.Schedule:
        name, item = request.match_info["name"], await decoded(request, wire.ScheduleItem)
        self._broker.schedules.append((name, item))
        return wire.Schedule(
            name=name, namespace=item.namespace, topic=item.topic, timezone=item.timezone, catch_up=item.catch_up, priority=item.priority,
            paused=False,
        )  # fmt: skip

    async def health(self, request: web.Request) -> str:
        return "OK"

    async def ready(self, request: web.Request) -> web.StreamResponse:
        shard = wire.ShardReady(shard=0, mode=self._broker.mode, redis="ok", postgres="ok", wal="ok")
        serves = self._broker.mode in ("hot", "cold")
        answer = reply(request, wire.Ready(status="ready" if serves else "not-ready", shards=[shard]))
        answer.set_status(200 if serves else 503)
        return answer


async def decoded(request: web.Request, kind: Any) -> Any:
    """The body. Raises Invalid."""
    codec = msgspec.msgpack if request.content_type == "application/msgpack" else msgspec.json
    try:
        return codec.decode(await request.read(), type=kind)
    except msgspec.ValidationError as error:
        place = re.search(r"\$\[(\d+)\]", str(error))
        raise Invalid(str(error), item=int(place[1]) if place else None) from error


def reply(request: web.Request, value: Any) -> web.Response:
    if isinstance(value, str):
        return web.Response(text=value)
    if request.headers.get("Accept") == "application/msgpack":
        return web.Response(body=msgspec.msgpack.encode(value), content_type="application/msgpack")
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def problem(status: int, code: str, detail: str, retry_after: float | None = None, item: int | None = None) -> web.Response:
    document = wire.Problem(title=code, status=status, code=code, detail=detail, item=item)
    headers = {"Retry-After": f"{retry_after:.0f}"} if retry_after is not None else {}
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/problem+json", headers=headers)
