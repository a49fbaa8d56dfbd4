"""Schedules have these endpoints: list, look at, put, pause, resume, run, delete."""

import re
from collections.abc import Mapping
from hashlib import blake2b

from mqueue import message as m
from mqueue import wire
from mqueue.broker import ports
from mqueue.broker.http import convert, decode
from mqueue.broker.http.auth import Verb
from mqueue.broker.http.call import Call
from mqueue.broker.http.endpoint import Handler
from mqueue.broker.http.quotas import Quotas

_NAME = re.compile(m.NAME_PATTERN)


class Schedules:
    def __init__(self, schedules: ports.Schedules, quotas: Quotas) -> None:
        self._schedules = schedules
        self._quotas = quotas

    def by_method(self) -> Mapping[str, tuple[Verb, Handler]]:
        """Of `/schedules/{name}`."""
        return {"GET": ("read", self.one), "PUT": ("write", self.put), "DELETE": ("write", self.delete)}

    async def page(self, call: Call) -> list[wire.Schedule]:
        query = call.query(decode.SchedulesQuery)
        if not decode.is_text(query.after):
            raise decode.wrong(decode.TEXT_RULE, None, "after")
        convert.check_names(query.namespace, ())
        call.caller.enter(query.namespace)
        found = await self._schedules.page(query.namespace, query.after, query.limit)
        return [convert.schedule(each, call.wants_msgpack) for each in found]

    async def one(self, call: Call) -> wire.Schedule:
        return convert.schedule(await self._schedules.find(*_named(call)), call.wants_msgpack)

    async def put(self, call: Call) -> wire.Schedule:
        call.query(decode.NoQuery)
        item = await call.decode(decode.SCHEDULE)
        wanted = convert.new_schedule(item, _name(call), call.sends_msgpack)
        call.caller.enter(item.namespace)
        return convert.schedule(await self._schedules.put(wanted, declares=item.declared), call.wants_msgpack)

    async def pause(self, call: Call) -> wire.Schedule:
        return convert.schedule(await self._schedules.pause(*_named(call)), call.wants_msgpack)

    async def resume(self, call: Call) -> wire.Schedule:
        return convert.schedule(await self._schedules.resume(*_named(call)), call.wants_msgpack)

    async def run(self, call: Call) -> wire.Ran:
        namespace, name = _named(call)
        key = call.idempotency_key()
        request = None if key is None else m.RequestKey(key, blake2b(name.encode(), digest_size=16).digest())
        await self._quotas.take({namespace: 1}, request)
        return wire.Ran(await self._schedules.run(namespace, name, request))

    async def delete(self, call: Call) -> wire.Deleted:
        return wire.Deleted(await self._schedules.delete(*_named(call)))


def _name(call: Call) -> str:
    name: str = call.scope["path_params"]["name"]
    if not _NAME.fullmatch(name):
        raise decode.wrong(decode.NAME_RULE, None, "name")
    return name


def _named(call: Call) -> tuple[str, str]:
    """Returns namespace and name, of a caller that may see them."""
    query = call.query(decode.ScheduleQuery)
    convert.check_names(query.namespace, ())
    call.caller.enter(query.namespace)
    return query.namespace, _name(call)
