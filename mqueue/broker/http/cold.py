"""The endpoints people and dashboards use: dead letters, topics, one message, health; and how workers hear of cancellations."""

import re
from collections.abc import Awaitable

from mqueue import message as m
from mqueue import wire
from mqueue.broker.http import convert, decode
from mqueue.broker.http.call import Call
from mqueue.broker.http.waits import Waits
from mqueue.broker.ports import Engine
from mqueue.errors import NotFound

_ID = re.compile(r"[0-9]{1,19}")


class Cold:
    def __init__(self, engine: Engine, waits: Waits) -> None:
        self._engine = engine
        self._waits = waits

    async def dead_letters(self, call: Call) -> list[wire.DeadItem]:
        query = call.query(decode.DeadQuery)
        convert.check_names(query.namespace, (query.topic,))
        call.caller.enter(query.namespace)
        dead = await self._engine.dead_letters(query.namespace, query.topic, query.limit, query.after)
        return [convert.dead_item(letter, call.wants_msgpack) for letter in dead]

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
        """Of one namespace, or of all the token may see."""
        query = call.query(decode.TopicsQuery)
        namespaces = None if call.caller.namespaces is None else sorted(call.caller.namespaces)
        if query.namespace is not None:
            convert.check_names(query.namespace, ())
            call.caller.enter(query.namespace)
            namespaces = [query.namespace]
        return [convert.topic(stats) for stats in await self._engine.topics(namespaces)]

    async def message(self, call: Call) -> wire.Status:
        call.query(decode.NoQuery)
        id: str = call.scope["path_params"]["id"]
        found = await self._engine.message(int(id)) if _ID.fullmatch(id) and int(id) < 2**63 else None
        seen = call.caller.namespaces
        if found is None or (seen is not None and found.namespace not in seen):
            raise NotFound(f"no message {id[:32]}")
        return convert.status(found, call.wants_msgpack)

    async def cancel(self, call: Call) -> wire.Cancel:
        """What the token may not see is as gone as what is not there."""
        await call.skip_body()
        call.query(decode.NoQuery)
        id: str = call.scope["path_params"]["id"]
        if not _ID.fullmatch(id) or int(id) >= 2**63:
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

    async def health(self, call: Call) -> str:
        """The process answers."""
        return "OK"

    async def ready(self, call: Call) -> wire.Ready:
        """Every shard would serve an enqueue and a fetch; and how each part is."""
        shards = self._engine.readiness()
        if not all(shard.serves for shard in shards):
            call.status = 503
            call.reply_headers.append((b"retry-after", b"1"))
        return wire.Ready(status="ready" if call.status == 200 else "not-ready", shards=[convert.shard_ready(shard) for shard in shards])
