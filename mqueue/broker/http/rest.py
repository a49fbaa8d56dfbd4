"""People and dashboards use these endpoints: dead letters, topics, workers, one message and its result, health; and
workers hear of cancellations.
"""

import re
from collections.abc import Awaitable
from functools import partial

from mqueue import message as m
from mqueue import wire
from mqueue.broker.http import convert, decode
from mqueue.broker.http.call import Call
from mqueue.broker.http.waits import Waits
from mqueue.broker.ports import Engine
from mqueue.errors import JobFailed, NotFound, Pending

TOPIC_BYTES = 256  # of a topic in an answer, about

_ID = re.compile(r"[0-9]{1,19}")


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and int(text) < 2**63


class Rest:
    def __init__(self, engine: Engine, waits: Waits) -> None:
        self._engine = engine
        self._waits = waits

    async def dead_letters(self, call: Call) -> list[wire.DeadItem]:
        query = call.query(decode.DeadQuery)
        convert.check_names(query.namespace, (query.topic,))
        call.caller.enter(query.namespace)
        call.make_room(query.namespace, 2 * m.PAGE_MAX)
        dead = await self._engine.dead_letters(query.namespace, query.topic, query.limit, query.after)
        msgpack, size = call.wants_msgpack, sum(letter.weight for letter in dead)
        return await call.in_turns(convert.each(lambda letter: convert.dead_item(letter, msgpack), dead), size)

    async def delete_dead(self, call: Call) -> wire.Verdict | list[wire.Verdict]:
        body = await call.decode(decode.DEAD_IDS)
        items = body if isinstance(body, list) else [body]
        by_topic: dict[m.TopicName, list[int]] = {}
        for index, item in enumerate(items):
            place = index if isinstance(body, list) else None
            convert.check_names(item.namespace, (item.topic,), place)
            call.caller.enter(item.namespace, place)
            by_topic.setdefault(m.TopicName(item.namespace, item.topic), []).append(item.id)
        verdicts: dict[tuple[m.TopicName, int], m.Verdict] = {}
        for name, ids in by_topic.items():
            answer = await self._engine.delete_dead(name.namespace, name.topic, ids)
            verdicts.update(zip(((name, id) for id in ids), answer, strict=True))
        answers = [wire.Verdict(item.id, verdicts[m.TopicName(item.namespace, item.topic), item.id]) for item in items]
        return answers if isinstance(body, list) else answers[0]

    async def topics(self, call: Call) -> list[wire.Topic]:
        """Answers with the topics of one namespace, or of all the token may see."""
        query = call.query(decode.TopicsQuery)
        namespaces = None if call.caller.namespaces is None else sorted(call.caller.namespaces)
        if query.namespace is not None:
            convert.check_names(query.namespace, ())
            call.caller.enter(query.namespace)
            namespaces = [query.namespace]
        call.make_room(query.namespace or "")
        missing: set[int] = set()
        found = await self._engine.topics(namespaces, missing)
        call.tell_missing(missing)
        return await call.in_turns(convert.each(convert.topic, found), len(found) * TOPIC_BYTES)

    async def workers(self, call: Call) -> str | list[wire.Worker]:
        """Hears a worker (POST), or shows those with a topic in this namespace, or in any that the
        token may see (GET).
        """
        if call.scope["method"] == "POST":
            told = await call.decode(decode.WORKER)
            report = convert.worker_report(told)
            for namespace in sorted({*report.key.namespaces, *(run.namespace for run in told.running)}):
                call.caller.enter(namespace)
            await self._engine.hear_worker(report, stopped=told.state == "stopped")
            return "OK"
        query = call.query(decode.TopicsQuery)
        namespaces = call.caller.namespaces
        if query.namespace is not None:
            convert.check_names(query.namespace, ())
            call.caller.enter(query.namespace)
            namespaces = frozenset({query.namespace})
        call.make_room(query.namespace or "")
        found = await self._engine.workers(None if namespaces is None else sorted(namespaces))
        size = sum(len(text) for text, _ in found)
        return await call.in_turns(convert.each(lambda told: convert.worker(*told, namespaces), found), size)

    async def message(self, call: Call) -> wire.Status:
        name = _named(call, call.query(decode.MessageQuery))
        id: str = call.scope["path_params"]["id"]
        found = await self._engine.message(int(id), call.caller.namespaces, name) if _is_id(id) else None
        if found is None:
            raise NotFound(f"no message {id[:32]}")
        return convert.status(found, call.wants_msgpack)

    async def cancel(self, call: Call) -> wire.Cancel:
        """Cancels a message. What the token may not see is as gone as what is not there."""
        await call.skip_body()
        call.query(decode.NoQuery)
        id: str = call.scope["path_params"]["id"]
        if not _is_id(id):
            raise NotFound(f"no message {id[:32]}")
        return wire.Cancel(int(id), await self._engine.cancel(int(id), call.caller.namespaces))

    async def cancelled(self, call: Call) -> wire.Cancelled:
        body = await call.decode(decode.WAIT_CANCELLED)
        for namespace in body.namespaces:
            convert.check_names(namespace, ())
            call.caller.enter(namespace)

        def wait() -> Awaitable[tuple[str, list[int]]]:
            return self._engine.wait_cancelled(body.namespaces, body.since, body.wait)

        since, ids = await self._waits.run(wait, call.receive, waits=body.wait > 0)
        return wire.Cancelled(since, ids)

    async def result(self, call: Call) -> wire.Result:
        """Answers with what the message left; waits for it. Raises Pending, JobFailed, NotFound."""
        query = call.query(decode.ResultQuery)
        await call.skip_body()  # so that what comes next can only be the client hanging up
        name = _named(call, query)
        id: str = call.scope["path_params"]["id"]
        found = None
        if _is_id(id):
            look = partial(self._engine.result, int(id), name, query.wait, call.caller.namespaces)
            found = await self._waits.run(look, call.receive, waits=query.wait > 0)
        if found is None:
            raise NotFound(f"no message {id[:32]}, and no result of it: it left none, or its time is over")
        if found.state == "dead":
            raise JobFailed(found.error or "")
        if found.state != "done":
            raise Pending(f"the message is {found.state}")
        return wire.Result(id=int(id), value=found.value)

    async def health(self, call: Call) -> str:
        """The process answers."""
        return "OK"

    async def ready(self, call: Call) -> wire.Ready:
        """Answers whether every shard would serve an enqueue and a fetch, and how each part is."""
        shards = self._engine.readiness()
        if not all(shard.serves for shard in shards):
            call.status = 503
            call.reply_headers.append((b"retry-after", b"1"))
        return wire.Ready(status="ready" if call.status == 200 else "not-ready", shards=[convert.shard_ready(shard) for shard in shards])


def _named(call: Call, query: decode.MessageQuery) -> m.TopicName | None:
    """Returns the topic that a look for a message names, if it names one."""
    if query.topic is None:
        return None
    convert.check_names(query.namespace, (query.topic,))
    call.caller.enter(query.namespace)
    return m.TopicName(query.namespace, query.topic)
