"""The real scripts in a real Valkey, called synchronously: one call is one moment. Its TIME is the simulation's, its
run id is made up.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError

from mqueue.broker.cache import keys, scripts
from mqueue.broker.cache.connections import Connections
from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.cache.scripts import FULL, Library
from mqueue.broker.embedded import StoreUrls
from mqueue.broker.faults import EpochEnded

from .link import Link, Server
from .shadow import Both, Shadow

TIME, ARGUMENTS = "call('TIME')", "ARGV = args"
PEEK = "local there = {} for i, key in ipairs(KEYS) do there[i] = redis.call('EXISTS', key) end return there"
NODES = (1, 2, 3)
GIVEN = "ARGV, given = args, { math.floor(keys[2] / 1000000), keys[2] % 1000000 }"
SHARD = 0


def _client(urls: StoreUrls) -> Any:
    return redis.Redis(unix_socket_path=urls.redis_addrs[0].removeprefix("unix://"), password=urls.redis_password)


def told_the_time(body: str) -> Library:
    """The library, told the time instead of asking for it."""
    assert body.count(TIME) == body.count("'TIME'") == body.count(ARGUMENTS) == 1
    return scripts.library("local given\n" + body.replace(TIME, "given").replace(ARGUMENTS, GIVEN))


class Redis(Server):
    """The server: what it holds, who it is, its clock."""

    def __init__(self, urls: StoreUrls, wall_us: Callable[[], int]) -> None:
        super().__init__("redis", lambda text: ConnectionError(text))
        self.client: Any = _client(urls)
        self._first = self.client
        self.library = told_the_time(scripts.load().body)
        self.shadow: Shadow | None = None
        self.client.function_load(self.library.text, replace=True)
        self._peek = self.client.script_load(PEEK)
        self._lists = [keys.ask(SHARD), keys.flush(SHARD), *(keys.wake(SHARD, node) for node in NODES)]  # those that calls block on
        self.filled = set(self._lists)
        self._waiting: list[asyncio.Future[None]] = []
        self._wall_us = wall_us
        self.offset_us = 0
        self.run = 0
        self.failing = 0  # the so-manieth script from now on fails
        self.read_only = False
        self.restart()

    def compare_with(self, urls: StoreUrls, revision: str) -> Shadow:
        """From here on whatever is asked is asked of a second server, too, with the scripts of that revision."""
        second = _client(urls)
        self.shadow, self._first = Shadow(self.client, second, revision), self.client
        self.client = Both(self._first, second)
        if self.shadow.is_old:  # it looked at the keys at each tick
            self.library = told_the_time(scripts.load().body.replace("LOOK = 1000000", "LOOK = 0"))
            self._first.function_load(self.library.text, replace=True)
        self._peek = self.client.script_load(PEEK)
        return self.shadow

    def begin(self, wall_us: Callable[[], int]) -> None:
        self._wall_us, self.offset_us, self.run, self.up, self.failing = wall_us, 0, 0, True, 0
        self.read_only = False
        self.limit(full=False)
        self._waiting.clear()
        self.filled = set(self._lists)
        self.restart()

    @property
    def run_id(self) -> str:
        return f"run-{self.run}"

    def time_us(self) -> int:
        return self._wall_us() + self.offset_us

    def clock_us(self) -> int:
        """The shard's, as of the last call."""
        return int(self.client.hget(keys.shard(SHARD), "clock") or 0)

    def forget(self) -> None:
        self.client.flushall()

    def limit(self, *, full: bool) -> None:
        self.client.config_set("maxmemory", int(full))

    def check(self) -> None:
        """A call that writes is refused by a replica."""
        if self.read_only:
            raise ReadOnlyError("You can't write against a read only replica.")

    def restart(self, snapshot: list[tuple[bytes, bytes]] | None = None) -> None:
        """Another process: empty, or with what an old file had."""
        self.run += 1
        self.limit(full=False)
        self.forget()
        for key, data in snapshot or ():
            self.client.restore(key, 0, data)

    def script(self, command: tuple[Any, ...]) -> Any:
        """A call, and a look at the lists that others wait on."""
        self.check()
        if self.failing:
            self.failing -= 1
            if self.failing == 0:
                raise ResponseError("ERR @user_function:1: the simulation's error")
        pipe = self._first.pipeline(transaction=False)
        pipe.execute_command(*command)
        pipe.evalsha(self._peek, len(self._lists), *self._lists)
        result, there = pipe.execute(raise_on_error=False)
        if self.shadow is not None:
            self.shadow.compare(str(command[1]).removeprefix(self.library.function("")), command[2:], result)
        self.filled = {key for key, exists in zip(self._lists, there, strict=True) if exists}
        if self.filled:
            self.wake()
        if isinstance(result, Exception):
            raise result
        return result

    def wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def pushed(self, timeout: float) -> None:
        """Something may have been pushed onto a list, or the time is over."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await asyncio.wait({future}, timeout=timeout)

    def snapshot(self) -> list[tuple[bytes, bytes]]:
        return [(key, self.client.dump(key)) for key in sorted(self.client.keys())]

    def left(self) -> dict[str, int]:
        """What a drained shard must not hold, and how much of it."""
        found: dict[str, int] = {}
        for key in sorted(self.client.keys()):
            name = key.decode().removeprefix(keys.prefix(SHARD))
            kind = name.split(":")[0]
            if kind in {"record", "body", "error"}:
                found[name] = self.client.hlen(key)
            elif kind == "dirty":
                found[name] = self.client.llen(key)
            elif kind in {"spill", "ready", "delayed", "leases", "dead"}:
                found[name] = self.client.zcard(key)
            elif kind == "topic":
                counters = self.client.hmget(key, "delayed", "leased", "unflushed")
                if any(int(c or 0) for c in counters):
                    found[name] = sum(int(c or 0) for c in counters)
        buffer = int(self.client.hget(keys.shard(SHARD), "buffer") or 0)
        return found | ({"buffer": buffer} if buffer else {})


class SimCache(ReadyCache):
    def __init__(self, server: Redis, link: Link) -> None:
        super().__init__(SHARD, "redis://nowhere")
        self._server = server
        self._link = link
        self._linked_to = ""
        self._redis = self._blocking = Client(self)
        self._library = server.library

    def connect(self) -> None:
        """As `_connected` does for each new connection: after a restart of the server all are new."""
        if self._linked_to != self._server.run_id:
            if self.run_id and self._server.run_id != self.run_id:
                raise EpochEnded(None)
            self._linked_to = self._server.run_id

    async def forget_connections(self) -> None:
        self._linked_to = ""

    async def _execute(self, command: tuple[Any, ...], connections: Connections) -> Any:
        name = str(command[0])
        if name == "FCALL":
            function, _, prefix, *args = command[1:]
            name = function.removeprefix(self._library.function("")).removesuffix(FULL)
        async with self._link.call(name):
            if connections is not self._beside:
                self.connect()
            if command[0] == "FCALL":
                result = self._server.script(("FCALL", function, 2, prefix, self._server.time_us(), *args))
            else:
                result = self._server.client.execute_command(*command)
        return result

    async def _pop(self, key: str, timeout: float) -> str | None:
        """Blocks here instead of there."""
        loop, server = asyncio.get_running_loop(), self._server
        deadline = loop.time() + timeout
        while True:
            if key in server.filled or loop.time() >= deadline:
                got = await self._io(lambda: self._redis.lpop(key))
                server.filled.discard(key)
                if got is not None:
                    server.filled.add(key)  # there may be more
                    return str(got.decode())
            if loop.time() >= deadline:
                return None
            self._link.owner.check()
            await server.pushed(deadline - loop.time())

    async def call(self, name: str, what: Callable[[], Any]) -> Any:
        async with self._link.call(name):
            self.connect()
            if name == "lpop":
                self._server.check()
            result = what()
        return result

    async def close(self) -> None: ...


class Client:
    """What the cache uses of redis-py's asyncio client, on the synchronous one."""

    def __init__(self, cache: SimCache) -> None:
        self._cache = cache

    async def info(self, section: str) -> dict[str, Any]:
        told: dict[str, Any] = await self._cache.call("info", lambda: {"run_id": self._cache._server.run_id, "maxmemory_policy": "noeviction"})
        return told

    def pipeline(self, transaction: bool) -> "Pipeline":
        return Pipeline(self._cache, self._cache._server.client.pipeline(transaction=transaction))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._cache._server.client, name)
        return lambda *args, **options: self._cache.call(name, lambda: method(*args, **options))


class Pipeline:
    def __init__(self, cache: SimCache, real: Any) -> None:
        self._cache = cache
        self._real = real

    async def execute(self) -> Any:
        return await self._cache.call("pipeline", self._real.execute)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._real, name)
        return method
