"""Server is one shard's Redis as this broker reaches it: its connections, and how a script is run there.

A method raises EpochEnded or Deposed where the script refused and changed nothing, CacheRefused where Redis itself did,
CacheLost where no answer came.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio as aioredis
import structlog
from redis.asyncio.connection import BlockingConnectionPool, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from mqueue.broker.cache import keys, refusals, scripts, sentinel
from mqueue.broker.cache.connections import Connections
from mqueue.broker.cache.refusals import ScriptFailed
from mqueue.broker.faults import Behind, CacheLost, CacheRefused, Deposed, EpochEnded, Fault, Refusal

T = TypeVar("T")
logger = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 5.0
CALLS_MAX = 16  # connections for scripts
FETCHES_MAX = 16  # more connections, for fetches: a crowd of pollers keeps waiting neither batches nor the leader's calls
PAGES_MAX = 2  # more connections, for pages of megabytes: what goes behind one waits while it travels
READS_MAX = 64  # more connections, for what is no script
BLOCKED_MAX = 8  # more connections: those that block in Redis for a wake or for what the leader is asked
UNKNOWN_FUNCTION = "Function not found"  # there is no class nor code for it
BESIDE_MAX = 2  # more connections: those that try whether it takes writes


class Server:
    """One shard's Redis. `timed`: gives, by the name of a script, what takes the seconds of a call.

    Raises ValueError where the URL is none, or has an option that is not kept.
    """

    def __init__(
        self, shard: int, url: str, password: str | None = None, timed: Callable[[str], Callable[[float], None]] | None = None
    ) -> None:
        self.shard = shard
        self.run_id = ""  # of the server that holds the epoch; a connection to another one is refused
        self._prefix = keys.prefix(shard)
        self._url = url if "://" in url else f"redis://{url}"
        self._password = password
        self._service = service = sentinel.parse(self._url)
        self._master = sentinel.Master(service) if service is not None else None
        # Any, since its hints say str where bytes come. Who must wait for a connection waits; what blocks in Redis has
        # others.
        self._redis: Any = aioredis.Redis(connection_pool=self._pool(BlockingConnectionPool, READS_MAX, timeout=CALL_TIMEOUT_S))
        self._blocking: Any = aioredis.Redis(connection_pool=self._pool(ConnectionPool, BLOCKED_MAX))
        self._connections = Connections(self._pool(ConnectionPool, CALLS_MAX), CALL_TIMEOUT_S)
        self._fetches = Connections(self._pool(ConnectionPool, FETCHES_MAX), CALL_TIMEOUT_S)
        self._pages = Connections(self._pool(ConnectionPool, PAGES_MAX), CALL_TIMEOUT_S)
        # to whichever server answers, and beside the calls, which may queue
        self._beside = Connections(self._pool(ConnectionPool, BESIDE_MAX, redis_connect_func=None), CALL_TIMEOUT_S)
        self._closing = asyncio.Lock()
        self._lanes = {"fetch": self._fetches, "flush_read": self._pages}  # by script; all others are calls
        self._doubted = 0  # an epoch in which Redis was a replica: it may have gone back since
        self._library = scripts.load()
        self._timed = {name: timed(name) for name in scripts.operations()} if timed is not None else {}

    def _pool(self, kind: type[ConnectionPool], connections: int, **more: Any) -> ConnectionPool:
        more = {
            "password": self._password,
            "max_connections": connections,
            "socket_timeout": None,  # a call has one for all its steps: the library's makes a task for each send
            "socket_connect_timeout": CALL_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "redis_connect_func": self._connected,
        } | more
        if self._service is not None:
            return kind(connection_class=self._service.connection_class, master=self._master, **(more | dict(self._service.master)))
        return kind.from_url(self._url, **more)

    async def _connected(self, connection: Any) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        run_id = _run_id(await connection.read_response())
        if self.run_id and run_id != self.run_id:
            await connection.disconnect()
            raise EpochEnded(None)

    async def forget_connections(self) -> None:
        """Closes the connections that wait for use: Redis was away, and they may lead nowhere.

        One caller at a time: the library's waits for an end are futures that its callers share, and who is cancelled
        in such a wait cancels all the others.
        """
        for connections in (self._connections, self._fetches, self._pages, self._beside):
            connections.close()
        async with self._closing:
            for redis in (self._redis, self._blocking):
                await redis.connection_pool.disconnect(inuse_connections=False)

    async def has_moved(self) -> bool:
        """Do the sentinels, where there are some that answer, name another master than the one that is used?"""
        try:
            return self._master is not None and await self._io(self._master.has_moved)
        except CacheLost:
            return False

    async def close(self) -> None:
        for redis in (self._redis, self._blocking):
            await redis.aclose()
            await redis.connection_pool.disconnect()
        for connections in (self._connections, self._fetches, self._pages, self._beside):
            connections.close()
        if self._master is not None:
            await self._master.close()

    async def _io(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await call()
        except (TimeoutError, RedisError, OSError) as error:
            raise refusals.fault(f"Redis of shard {self.shard}", error) from error

    async def _try(self, name: str, *args: Any, full: bool = False) -> list[Any]:
        """Runs an operation in whichever server answers, without queueing with the calls."""
        try:
            answer: list[Any] = await self._call(name, args, self._beside, full)
        except ScriptFailed as error:
            raise CacheRefused(Refusal.OTHER, f"Redis of shard {self.shard}, {name}: {error}") from error
        except CacheRefused as refused:
            if refused.kind is Refusal.READ_ONLY:
                self._doubt(args[0])
                self._beside.close()
            raise
        return answer

    async def _run(self, name: str, *args: Any, full: bool = False) -> list[Any]:
        """Runs an operation. `full`: it brings no messages, so that a full Redis lets it run (of scripts.BRINGS)."""
        if self._doubted:
            await self._end_doubted()
        began = time.perf_counter()
        try:
            answer = await self._call(name, args, self._lanes.get(name, self._connections), full)
        except CacheRefused as refused:
            if refused.kind is Refusal.READ_ONLY:  # no master any more: who connects again finds the one there is
                self._doubt(args[0])
                await self.forget_connections()
            raise
        except ScriptFailed as error:
            # something evicted or deleted keys: the leader opens a new epoch
            logger.error("a script failed: the epoch ends", shard=self.shard, script=name, error=str(error))
            await self._end_epoch(b"")
            raise EpochEnded(None) from error
        if observe := self._timed.get(name):
            observe(time.perf_counter() - began)
        status = answer[0]
        if status == b"epoch":
            raise EpochEnded(int(answer[1]) if answer[1] else None)
        if status == b"term":
            raise Deposed(f"term {answer[1].decode()} stands")
        if status == b"behind":
            raise Behind(f"Redis of shard {self.shard} has applied {answer[1].hex() or 'nothing'}")
        found: list[Any] = answer
        return found

    async def _call(self, name: str, args: tuple[Any, ...], connections: Connections, full: bool = False) -> Any:
        """Raises ScriptFailed, CacheRefused, CacheLost."""
        operation = name + scripts.FULL if full and name in scripts.BRINGS else name
        try:
            try:
                return await self._execute(("FCALL", self._library.function(operation), 1, self._prefix, *args), connections)
            except ResponseError as error:
                if str(error) != UNKNOWN_FUNCTION:
                    raise
            return await self._load_and_call(operation, args, connections)
        except (TimeoutError, RedisError, OSError) as error:
            raise refusals.fault(f"Redis of shard {self.shard}, {name}", error) from error

    async def _load_and_call(self, operation: str, args: tuple[Any, ...], connections: Connections) -> Any:
        """Redis is new here, or this release is. A full one takes no library: it is given the text with the call."""
        try:
            await self._execute(("FUNCTION", "LOAD", "REPLACE", self._library.text), connections)
        except OutOfMemoryError:
            return await self._execute(("EVAL", self._library.script(operation), 1, self._prefix, *args), connections)
        return await self._execute(("FCALL", self._library.function(operation), 1, self._prefix, *args), connections)

    def _doubt(self, epoch: int | str) -> None:
        self._doubted = int(epoch or 0) or self._doubted

    async def _end_doubted(self) -> None:
        """Ends the epoch in which Redis was a replica: it may have taken what its master had, which is older."""
        doubted = self._doubted
        await self._end_epoch(doubted)
        self._doubted = 0
        logger.warning("Redis was a replica: the epoch ends", shard=self.shard, epoch=doubted)

    async def _end_epoch(self, epoch: int | bytes) -> None:
        """Has Redis forget this epoch (empty: whichever it knows)."""
        try:
            await self._call("end_epoch", (epoch,), self._connections)
        except ScriptFailed as error:
            raise CacheLost(f"Redis of shard {self.shard} cannot end the epoch: {error}") from error

    async def _execute(self, command: tuple[Any, ...], connections: Connections) -> Any:
        return await connections.execute(command)

    async def _pop(self, key: str, timeout: float) -> str | None:
        got = await self._io(lambda: self._blocking.blpop([key], timeout=timeout))
        return got[1].decode() if got else None


def _run_id(info: bytes | str | dict[str, Any]) -> str:
    if isinstance(info, dict):
        return str(info["run_id"])
    text = info.decode() if isinstance(info, bytes) else info
    for line in text.splitlines():
        if line.startswith("run_id:"):
            return line[7:].strip()
    raise Fault("INFO server names no run_id")
