"""Commands go over a few connections; what is asked in one turn of the event loop goes out together, in one write.

Redis runs one command at a time, so a connection for each caller wins nothing there. Here it costs a write, a read and
a turn of the loop for each: measured with sixteen at once, 51 µs a command instead of 15. But what shares a connection
waits for the answers before its own, also for a large one that takes long to travel. So only one turn's commands share,
and few of them: the next ones take a connection on which nothing is asked, or open one. At their limit all share, the
connection with the fewest commands first. Behind a large command nothing goes in the same turn.

An answer's size is not known before. Beside answers of 8 MiB one after another, of ten small ones one took 10 ms, and 2
where those had connections of their own. So has what asks for such pages, and what must not wait at all (server.py).
"""

import asyncio
from collections import deque
from itertools import islice
from typing import Any

import hiredis
from redis.exceptions import RedisError

from mqueue.broker.cache.pipeline import IN_FLIGHT_MAX, Pipeline, connect

# What a URL may ask of the library, which does it for each command: here nobody would.
FOREIGN = {"decode_responses", "encoding", "encoding_errors", "health_check_interval", "retry_on_timeout", "socket_read_size"}
OPENS_S = 0.05  # one that opens within is waited for


class Connections:
    """The connections of one lane. `pool`: one of redis.asyncio, which says how to connect and how many there may be.
    `timeout`: seconds, of a command, and of the wait for a connection; less where the pool's `socket_timeout` is less.

    Raises ValueError where the pool has options that are not kept here.
    """

    def __init__(self, pool: Any, timeout: float) -> None:  # Any, as the library's hints say str where bytes come
        _check(pool)
        self._pool = pool
        self._timeout = min(timeout, pool.connection_kwargs.get("socket_timeout") or timeout)
        self._pipelines: list[Pipeline] = []
        self._latest: Pipeline | None = None
        self._queue: deque[asyncio.Event] = deque()  # those for whom there was no room
        self._shares = False  # is one being opened that takes long?

    async def execute(self, command: tuple[Any, ...]) -> Any:
        """Returns the answer. Raises TimeoutError, RedisError, OSError; the connection is closed then, unless the
        server has said so. A command that was not answered may have run.
        """
        packed = hiredis.pack_command(command)
        pipeline = None if self._queue and not self._shares else self._choose()
        if pipeline is None:
            async with asyncio.timeout(self._timeout):
                pipeline = await self._obtain()
        return await self._ask(pipeline, packed)

    def close(self) -> None:
        """Closes them, those in use when they have their answers."""
        for pipeline in [*self._pipelines]:
            pipeline.retire()

    async def _ask(self, pipeline: Pipeline, packed: bytes) -> Any:
        try:
            return await pipeline.send(packed, self._timeout)
        except asyncio.CancelledError:
            pipeline.retire()
            raise

    def _choose(self) -> Pipeline | None:
        """Returns the one for a command; None where one is to be opened first, or all are full."""
        latest = self._latest
        if latest is not None and latest.gathers and latest.has_room:
            return latest
        usable = [pipeline for pipeline in self._pipelines if pipeline.has_room]
        least = min(usable, key=lambda pipeline: pipeline.in_flight, default=None)
        if least is None or (least.in_flight and not self._shares and self._may_open()):
            return None
        self._latest = least
        return least

    async def _obtain(self) -> Pipeline:
        """Waits in the queue. Its first one opens a connection where there may be one more."""
        place = asyncio.Event()
        self._queue.append(place)
        try:
            while True:
                first = place is self._queue[0]
                if (first or self._shares) and (pipeline := self._choose()) is not None:
                    return pipeline
                if first and self._may_open():
                    if (pipeline := await self._open()) is not None:
                        return pipeline
                else:
                    place.clear()
                    await place.wait()
        finally:
            self._queue.remove(place)
            self._wake()

    def _may_open(self) -> bool:
        return bool(sum(not pipeline.is_retired for pipeline in self._pipelines) < self._pool.max_connections)

    async def _open(self) -> Pipeline | None:
        """Opens one more. Where that fails another one is to be shared, which it returns. Raises RedisError, OSError
        where there is none.
        """
        slow = asyncio.get_running_loop().call_later(OPENS_S, self._share)
        try:
            self._pipelines.append(await connect(self._pool, self._changed))
        except (RedisError, OSError):
            self._share()
            if (shared := self._choose()) is None:
                raise
            return shared
        finally:
            slow.cancel()
            self._shares = False
        return None

    def _share(self) -> None:
        """While one opens that takes long, the others go over those that there are."""
        self._shares = True
        self._wake()

    def _changed(self, pipeline: Pipeline) -> None:
        if not pipeline.is_open and pipeline in self._pipelines:
            self._pipelines.remove(pipeline)
        self._wake()

    def _wake(self) -> None:
        """Has those look again who may find room now: in one turn of the loop, so their commands go together."""
        for place in islice(self._queue, IN_FLIGHT_MAX):
            place.set()


def _check(pool: Any) -> None:
    if foreign := FOREIGN & pool.connection_kwargs.keys():
        raise ValueError(f"a Redis URL cannot have the option {', '.join(sorted(foreign))} here")
    try:
        pool.make_connection()
    except (TypeError, ValueError, RedisError) as error:
        raise ValueError(f"a Redis URL has an option that is unknown or wrong: {error}") from error
