"""The hot endpoints are enqueue, dequeue, poll, ack, nack and extend. Each decodes, checks namespaces, calls the
engine.

What they did to messages the engine counts.
"""

from collections.abc import Awaitable, Iterable, Sequence
from hashlib import blake2b
from typing import TypeVar

from mqueue import message as m
from mqueue import wire
from mqueue.broker.http import convert, decode
from mqueue.broker.http.call import DURABILITY, Call
from mqueue.broker.http.quotas import Quotas
from mqueue.broker.http.waits import Waits
from mqueue.broker.ports import Asks, Engine
from mqueue.errors import Invalid, Stale

T = TypeVar("T")


class Hot:
    def __init__(self, engine: Engine, quotas: Quotas, waits: Waits) -> None:
        self._engine = engine
        self._quotas = quotas
        self._waits = waits

    async def enqueue(self, call: Call) -> list[int]:
        """Returns ids in order. Nothing is enqueued when one item is refused."""
        key = call.idempotency_key()
        items, raw = await call.decode_and_raw(decode.ENQUEUE)
        messages = await call.in_turns(_messages(call, items, keyed=key is not None), len(raw))
        request = None if key is None else m.RequestKey(key, blake2b(raw, digest_size=16).digest())
        await self._quotas.take(m.by_namespace(messages), request)
        accepted = await self._engine.enqueue(messages, request, call.durability())
        call.reply_headers.append((DURABILITY, accepted.durability.encode()))
        return accepted.ids

    async def dequeue(self, call: Call) -> list[wire.Message]:
        query = call.query(decode.FetchQuery)
        await call.skip_body()  # so that what comes next can only be the client hanging up
        return await self._fetch(call, query, Asks(call.has_gone))

    async def poll(self, call: Call) -> wire.Polled:
        """Settles first. If the fetch fails the answer is its error: settling again is harmless."""
        poll = await call.decode(decode.POLL)
        if poll.limit and not poll.topics:
            raise Invalid("topics: at least one is needed to fetch", field="topics")
        convert.check_names(poll.namespace, poll.topics)
        call.caller.enter(poll.namespace)
        settles = []
        for index, item in enumerate(poll.settle):
            call.caller.enter(item.namespace, index)
            settles.append(convert.settle(item, item.kind, index))
        self._waits.enough(poll.namespace, poll.end)
        messages: list[wire.Message] = []
        asks = Asks(call.has_gone, takes_less=True)
        with self._waits.named(poll.namespace, poll.name, asks):  # from here on, since it may be ended while it settles
            verdicts = await self._engine.settle(settles) if settles else []
            if poll.limit and not asks.said:
                fetch = decode.FetchQuery(topic=poll.topics, namespace=poll.namespace, limit=poll.limit, wait=poll.wait, lease=poll.lease)
                messages = await self._fetch(call, fetch, asks)
        return wire.Polled([wire.Verdict(s.id, v) for s, v in zip(settles, verdicts, strict=True)], messages, asks.named)

    async def ack(self, call: Call) -> wire.Verdict | list[wire.Verdict]:
        return await self._settle_all(call, "ack")

    async def nack(self, call: Call) -> wire.Verdict | list[wire.Verdict]:
        return await self._settle_all(call, "nack")

    async def extend(self, call: Call) -> wire.Verdict | list[wire.Verdict]:
        body = await call.decode(decode.EXTEND)
        extends = []
        for index, item in _indexed(body):
            call.caller.enter(item.namespace, index)
            extends.append(convert.extend(item, index))
        return _verdicts(body, [e.id for e in extends], await self._engine.extend(extends) if extends else [])

    async def _settle_all(self, call: Call, kind: m.Kind) -> wire.Verdict | list[wire.Verdict]:
        body = await call.decode(decode.SETTLE)
        settles = []
        for index, item in _indexed(body):
            call.caller.enter(item.namespace, index)
            settles.append(convert.settle(item, kind, index))
        return _verdicts(body, [s.id for s in settles], await self._engine.settle(settles) if settles else [])

    async def _fetch(self, call: Call, query: decode.FetchQuery, asks: Asks) -> list[wire.Message]:
        convert.check_names(query.namespace, query.topic)
        call.caller.enter(query.namespace)
        call.make_room(query.namespace)
        topics = list(dict.fromkeys(query.topic))

        def fetch() -> Awaitable[list[m.Delivery]]:
            return self._engine.fetch(query.namespace, topics, query.limit, query.wait, query.lease, asks)

        deliveries = await self._waits.run(fetch, call.receive, waits=query.wait > 0)
        call.tell_missing(asks.named)
        msgpack = call.wants_msgpack
        size = sum(len(delivery.payload) + len(delivery.metadata or b"") for delivery in deliveries)
        return await call.in_turns(convert.each(lambda delivery: convert.message(delivery, msgpack), deliveries), size)


def _messages(call: Call, items: list[decode.EnqueueItem], *, keyed: bool) -> decode.Steps[list[m.NewMessage]]:
    """Converts what a caller may enqueue. `keyed`: the request has a key of its own."""
    messages = []
    msgpack = call.sends_msgpack
    for index, item in enumerate(items):
        call.caller.enter(item.namespace, index)
        if keyed and item.idempotency_key is not None:
            raise decode.wrong("the request has a key of its own (Idempotency-Key): give the one or the other", index, "idempotency_key")
        messages.append(convert.new_message(item, index, msgpack))
        yield
    return messages


def _indexed(body: T | list[T]) -> Iterable[tuple[int | None, T]]:
    """Returns one item, without an index, or the items of an array."""
    return enumerate(body) if isinstance(body, list) else ((None, body),)


def _verdicts(body: object, ids: Sequence[int], verdicts: Sequence[m.Verdict]) -> wire.Verdict | list[wire.Verdict]:
    """Answers an array with an array; one with one, where `stale` is an error."""
    answers = [wire.Verdict(id, verdict) for id, verdict in zip(ids, verdicts, strict=True)]
    if isinstance(body, list):
        return answers
    if answers[0].status == "stale":
        raise Stale("the lease is no longer current; nothing was changed")
    return answers[0]
