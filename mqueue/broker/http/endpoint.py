"""Every endpoint, hot or not, stands in one frame: method, token, answer, errors, metrics. There is no middleware."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import structlog

from mqueue.broker.http import problem
from mqueue.broker.http.auth import Authenticator, Verb
from mqueue.broker.http.call import ANSWER, WRITE, AnswerBudget, BodyBudget, Call, ClientGone, Receive, Scope, Send
from mqueue.broker.http.protocol import CUT
from mqueue.broker.metrics import Metrics
from mqueue.clock import Clock
from mqueue.errors import MQueueError, Unavailable

Handler = Callable[[Call], Awaitable[object]]

CLIENT_GONE = 499  # only in metrics: the client hung up before the answer
UNREAD = 498  # only in metrics: the client did not read its answer in time
JSON = (b"content-type", b"application/json")
MSGPACK = (b"content-type", b"application/msgpack")
TEXT = (b"content-type", b"text/plain; charset=utf-8")

_to_json = msgspec.json.Encoder().encode
_to_msgpack = msgspec.msgpack.Encoder().encode

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """What all endpoints share."""

    auth: Authenticator
    metrics: Metrics
    clock: Clock
    budget: BodyBudget = field(default_factory=BodyBudget)
    answers: AnswerBudget = field(default_factory=AnswerBudget)


class Endpoint:
    """An ASGI application. `handler` returns a str (text) or anything msgspec encodes; `verb` None needs no token."""

    def __init__(self, frame: Frame, route: str, methods: tuple[str, ...], verb: Verb | None, handler: Handler) -> None:
        self._frame = frame
        self._route = route
        self._methods = methods
        self._verb: Verb | None = verb
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        frame = self._frame
        started = frame.clock.monotonic()
        call = Call(scope, receive, frame.budget, frame.answers)
        try:
            status, headers, body = await self._made(call)
            if status == CLIENT_GONE:
                frame.metrics.request(self._route, status, frame.clock.monotonic() - started)
                return
            call.hold_answer(len(body))
            answer = scope.get("extensions", {}).get(ANSWER)
            if answer is None or len(body) > WRITE or not answer(status, headers, body):
                await _write(send, status, headers, body)
        finally:
            call.hold_answer(0)
        frame.metrics.request(self._route, UNREAD if scope.get(CUT) else status, frame.clock.monotonic() - started)

    async def _made(self, call: Call) -> problem.Answer:
        """Returns the answer, whatever happens; its status is CLIENT_GONE where nobody waits for it."""
        try:
            return await self._answer(call)
        except MQueueError as error:
            return problem.answer(error)
        except ClientGone:
            return CLIENT_GONE, [], b""
        except asyncio.CancelledError:  # the server's grace has ended
            return problem.answer(Unavailable("the broker stops; unknown whether this happened", retry_after=1.0))
        except Exception:
            log.exception("a request failed unexpectedly", route=self._route)
            return problem.answer(MQueueError())
        finally:
            call.close()

    async def _answer(self, call: Call) -> problem.Answer:
        if self._methods and call.scope["method"] not in self._methods:
            raise problem.MethodNotAllowed(self._methods)
        if self._verb is not None:
            call.caller = self._frame.auth.check(call.headers)
            call.caller.require(self._verb)
        result = await self._handler(call)
        if isinstance(result, str):
            kind, body = TEXT, result.encode()
        elif call.wants_msgpack:
            kind, body = MSGPACK, _to_msgpack(result)
        else:
            kind, body = JSON, _to_json(result)
        return call.status, [kind, (b"content-length", b"%d" % len(body)), *call.reply_headers], body


async def _write(send: Send, status: int, headers: problem.Headers, body: bytes) -> None:
    """Hands a large answer over bit by bit, as fast as the client reads it, or the connection is cut."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    at = 0
    while len(body) - at > WRITE:
        await send({"type": "http.response.body", "body": body[at : at + WRITE], "more_body": True})
        at += WRITE
    await send({"type": "http.response.body", "body": body[at:] if at else body})


class ByMethod:
    """One path whose methods do different things. `handlers`: method → verb and handler."""

    def __init__(self, frame: Frame, route: str, handlers: Mapping[str, tuple[Verb, Handler]]) -> None:
        self._endpoints = {method: Endpoint(frame, route, (method,), verb, handler) for method, (verb, handler) in handlers.items()}
        self._refuses = Endpoint(frame, route, tuple(handlers), None, _unreachable)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoints.get(scope["method"], self._refuses)(scope, receive, send)


async def _unreachable(call: Call) -> object:
    raise AssertionError("refused by its method before")
