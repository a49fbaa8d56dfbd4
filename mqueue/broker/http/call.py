"""A Call is one HTTP request as the endpoints see it: headers read once, the body counted, the memory of bodies
bounded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, TypeVar

from msgspec import Struct

from mqueue import message as m
from mqueue.broker.http.auth import Caller
from mqueue.broker.http.decode import SMALL, Body, Steps, at_once, query
from mqueue.errors import Invalid, TooLarge, Unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

T = TypeVar("T")
Q = TypeVar("Q", bound=Struct)

ANSWERS_MAX = 128 * 1024 * 1024  # bytes of answers larger than one write, all under way together
WRITE = 64 * 1024  # bytes of an answer that are written at once
BODIES_MAX = 256 * 1024 * 1024  # bytes of bodies larger than one read, all requests together

TURN_S = 0.01  # of the loop, for one large request; a step may take a little longer

DURABILITY = b"mqueue-durability"
MISSING = b"mqueue-missing-shards"

# Extensions of the scope.
GONE = "mqueue.gone"  # has the client hung up, though nobody has read that yet?
ANSWER = "mqueue.answer"  # takes status, headers and body of a small answer in one call; False: send it, since it must wait

ANYONE = Caller(None, None, 0.0, 0.0)


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


class BodyBudget:
    """Counts the bytes that large bodies may take together. `turn`: one of them is worked on at a time, so that a turn
    of the loop has a step of one.
    """

    def __init__(self, limit: int = BODIES_MAX) -> None:
        self._free = limit
        self.turn = asyncio.Lock()

    def take(self, size: int) -> None:
        if size > self._free:
            raise Unavailable("too many large requests at once", retry_after=1.0)
        self._free -= size

    def give_back(self, size: int) -> None:
        self._free += size


class AnswerBudget:
    """Counts the bytes that large answers may take together, from when they are asked for until they are written; those
    of one namespace may take half of it, so that readers who do not read cannot keep the others from theirs.
    """

    def __init__(self, limit: int = ANSWERS_MAX) -> None:
        self._limit = limit
        self._total = 0
        self._held: dict[str, int] = {}  # by namespace

    def take(self, namespace: str, size: int) -> None:
        """Raises Unavailable where there is no room."""
        if self._total + size > self._limit or self._held.get(namespace, 0) + size > self._limit // 2:
            raise Unavailable("too many large answers are being read", retry_after=1.0)
        self.change(namespace, size)

    def change(self, namespace: str, size: int) -> None:
        self._total += size
        self._held[namespace] = held = self._held.get(namespace, 0) + size
        if not held:
            del self._held[namespace]


class Call:
    """One request. `caller` is set once the token is verified; `status`, `reply_headers`: of the answer, where its
    endpoint says so. `sends_msgpack`: everything else is taken for JSON, also what `curl -d` calls a form.
    """

    __slots__ = (
        "_answers",
        "_budget",
        "_held",
        "_namespace",
        "_reserved",
        "caller",
        "headers",
        "receive",
        "reply_headers",
        "scope",
        "sends_msgpack",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, budget: BodyBudget, answers: AnswerBudget) -> None:
        self.scope = scope
        self.receive = receive
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.sends_msgpack = self.headers.get(b"content-type", b"").startswith(b"application/msgpack")
        self.caller = ANYONE
        self.status = 200
        self.reply_headers: list[tuple[bytes, bytes]] = []
        self._budget = budget
        self._held = 0
        self._answers = answers
        self._namespace = ""
        self._reserved = 0

    def has_gone(self) -> bool:
        """Has the client hung up, as far as the connection knows at this moment?"""
        gone = self.scope.get("extensions", {}).get(GONE)
        return gone is not None and bool(gone())

    def tell_missing(self, shards: Collection[int]) -> None:
        """Says of which shards the answer has nothing, since they gave none."""
        if shards:
            self.reply_headers.append((MISSING, ", ".join(map(str, sorted(shards))).encode()))

    @property
    def wants_msgpack(self) -> bool:
        accept = self.headers.get(b"accept", b"*/*")
        return self.sends_msgpack if accept == b"*/*" else b"application/msgpack" in accept

    def query(self, type: type[Q]) -> Q:
        return query(type, self.scope["query_string"])

    def idempotency_key(self) -> str | None:
        """Returns the key of the whole request (draft-ietf-httpapi-idempotency-key-header); its
        quotes may be left out.
        """
        raw = self.headers.get(b"idempotency-key")
        if raw is None:
            return None
        key = raw[1:-1] if len(raw) > 1 and raw[:1] == raw[-1:] == b'"' else raw
        if not 0 < len(key) <= m.KEY_MAX or not all(0x20 <= letter < 0x7F for letter in key):
            raise Invalid(f"Idempotency-Key: 1 to {m.KEY_MAX} printable ASCII characters", field="Idempotency-Key")
        return key.decode("ascii")

    def durability(self) -> m.Durability:
        """Returns what the client asks for."""
        asked = self.headers.get(DURABILITY, b"wal")
        if asked not in (b"wal", b"postgres"):
            raise Invalid("Mqueue-Durability: wal or postgres", field="Mqueue-Durability")
        return "postgres" if asked == b"postgres" else "wal"

    async def decode(self, body: Body[T]) -> T:
        decoded, _ = await self.decode_and_raw(body)
        return decoded

    async def decode_and_raw(self, body: Body[T]) -> tuple[T, bytes]:
        """Returns what it says, and the bytes it came in."""
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise Invalid("compressed bodies are not accepted", field="content-encoding")
        raw = await self._read(body.size)
        if len(raw) <= SMALL:
            return body.decode(raw, self.sends_msgpack), raw
        return await self.in_turns(body.read(raw, self.sends_msgpack), len(raw)), raw

    async def in_turns(self, work: Steps[T], size: int) -> T:
        """Does what the size of a body makes large step by step; the loop turns meanwhile."""
        if size <= SMALL:
            return at_once(work)
        async with self._budget.turn:
            await asyncio.sleep(0)  # the body was put together in this turn
            began = time.monotonic()
            try:
                while True:
                    next(work)
                    if time.monotonic() - began > TURN_S:
                        await asyncio.sleep(0)
                        began = time.monotonic()
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]

    async def skip_body(self) -> None:
        await self._read(m.BODY_MAX)

    async def _read(self, limit: int) -> bytes:
        """Reads the body. The time limit of a slow one is the connection's (`protocol.py`)."""
        declared = int(self.headers.get(b"content-length", b"0"))
        if declared > limit:
            raise _too_large(limit)
        body, more = await self._receive()
        if not more:
            if len(body) > limit:
                raise _too_large(limit)
            return body
        self._hold(declared or limit)
        chunks, size = [body], len(body)
        while more:
            body, more = await self._receive()
            chunks.append(body)
            size += len(body)
            if size > limit:
                raise _too_large(limit)
        return b"".join(chunks)

    async def _receive(self) -> tuple[bytes, bool]:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message["body"], message["more_body"]

    def _hold(self, size: int) -> None:
        self._budget.take(size)
        self._held = size

    def make_room(self, namespace: str, size: int = 0) -> None:
        """Asks before an answer is made that may be large, of about that size. Raises Unavailable."""
        self._answers.take(namespace, max(1, size))
        self._namespace, self._reserved = namespace, max(1, size)

    def hold_answer(self, size: int) -> None:
        """Counts an answer that was made, instead of what was asked for."""
        size = size if size > WRITE else 0
        if size != self._reserved:
            self._answers.change(self._namespace, size - self._reserved)
            self._reserved = size

    def close(self) -> None:
        if self._held:
            self._budget.give_back(self._held)
            self._held = 0


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body of this request may have {limit} bytes")
