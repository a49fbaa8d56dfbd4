"""A pipeline is one connection to Redis over which commands of several callers go; the answers come in that order.

The library connects, since it knows addresses, TLS, users, databases and sentinels. Then its transport is taken over:
what the library does for each command costs as much as a script, while here a command is a future in a queue.

An answer belongs to the caller at the head of the queue, and to nobody else. So whatever makes that doubtful ends the
connection: bytes that are no answer, an answer that nobody asked for, one that grows without an end. Who stops waiting
(it was cancelled, or its time is over) stays in the queue, and what comes for it is thrown away. The connection is
*retired* then: it takes no more commands, since it may lead nowhere, and closes as soon as nobody waits any more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse, RedisError

IN_FLIGHT_MAX = 16  # commands without an answer: more save little, and keep the last of them waiting
UNSENT_MAX = 64 * 1024  # bytes: where more wait to be written, what comes next goes another way
ANSWER_MAX = 64 * 1024 * 1024  # bytes: a page of 8 MiB is the most that is asked for
PUSH = b">"  # begins what a server tells of itself, asked for by nobody
PART: Any = object()  # an answer has not come to its end
error_of = DefaultParser(socket_read_size=1).parse_error  # the library's classes, by the code word of an error


class Pipeline(asyncio.Protocol):
    """It is open until `is_open` says otherwise. `writer`: the library's, of a connection on which nothing is asked.
    `changed`: is called with it when an answer came, when it may take more, and when it has ended.
    """

    def __init__(self, writer: asyncio.StreamWriter, changed: Callable[["Pipeline"], None]) -> None:
        self._writer = writer  # closes the transport when nobody holds it
        self._transport = writer.transport
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=error_of, notEnoughData=PART)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()  # and until when, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None  # one for all that wait
        self._unsent: list[bytes] = []  # asked in this turn of the loop
        self._unsent_bytes = 0
        self._part_bytes = 0  # of the answer that comes
        self._is_full = False
        self._is_retired = False
        self.is_open = True
        self._transport.set_write_buffer_limits(UNSENT_MAX)
        self._transport.set_protocol(self)

    @property
    def in_flight(self) -> int:
        """How many commands have no answer yet."""
        return len(self._waiting)

    @property
    def gathers(self) -> bool:
        """Has something been asked in this turn of the loop, which goes out at its end?"""
        return bool(self._unsent)

    @property
    def is_retired(self) -> bool:
        return self._is_retired

    @property
    def has_room(self) -> bool:
        """May one more command be sent?"""
        return not (self._is_retired or self._is_full) and len(self._waiting) < IN_FLIGHT_MAX and self._unsent_bytes < UNSENT_MAX

    def send(self, packed: bytes, timeout: float) -> asyncio.Future[Any]:
        """Returns what becomes of a command for which there is room: its answer, TimeoutError, or RedisError.

        `timeout`: seconds, the same for all.
        """
        future = self._loop.create_future()
        deadline = self._loop.time() + timeout
        self._waiting.append((future, deadline))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(packed)
        self._unsent_bytes += len(packed)
        return future

    def retire(self) -> None:
        """Takes no more commands; closes now or as soon as nobody waits for an answer."""
        self._is_retired = True
        if all(future.done() for future, _ in self._waiting):
            self._end(ConnectionError, "the connection was closed")

    # -- what the transport calls --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not (self._waiting or self._part_bytes or data.startswith(PUSH)):
            self._end(InvalidResponse, "something came that nobody asked for")
            return
        self._part_bytes += len(data)
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not PART:
                self._part_bytes = 0
                if answer.__class__ is hiredis.PushNotification:
                    continue  # no answer: the server tells of itself
                if not self._waiting:
                    raise InvalidResponse("more came than was asked for")
                self._answered(answer)
        except InvalidResponse as error:
            self._end(InvalidResponse, str(error))
        if self._part_bytes > ANSWER_MAX:
            self._end(InvalidResponse, f"an answer has more than {ANSWER_MAX} bytes")
        if self._is_retired:
            self.retire()
        self._changed(self)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._changed(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(ConnectionError, f"the connection is lost: {error}" if error else "the server has closed the connection")

    # ------------------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if not self._unsent:  # it has ended meanwhile
            return
        had_room = self._unsent_bytes < UNSENT_MAX
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        self._unsent_bytes = 0
        if not had_room:
            self._changed(self)

    def _answered(self, answer: Any) -> None:
        future, _ = self._waiting.popleft()
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _look(self) -> None:
        """Tells those whose time is over, and sets the timer for the next one."""
        self._timer = None
        now = self._loop.time()
        is_late = False
        for future, deadline in self._waiting:
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._look)
                break
            is_late = True
            if not future.done():
                future.set_exception(TimeoutError("no answer came in time"))
        if is_late:
            self.retire()

    def _end(self, kind: type[RedisError], why: str) -> None:
        """Tells all who wait, and closes the connection."""
        if not self.is_open:
            return
        self.is_open, self._is_retired = False, True
        if self._timer is not None:
            self._timer.cancel()
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(kind(why))
        self._waiting.clear()
        self._unsent.clear()
        self._transport.abort()
        self._changed(self)


async def connect(pool: Any, changed: Callable[[Pipeline], None]) -> Pipeline:
    """Opens a connection as the pool's are, and takes it over. Raises RedisError, OSError, and whatever the pool's
    `redis_connect_func` raises.
    """
    opened = pool.make_connection()
    try:
        await opened.connect()
    except BaseException:
        await opened.disconnect(nowait=True)
        raise
    reader, writer = opened._reader, opened._writer
    opened._reader = opened._writer = None  # the library has nothing more to close
    pipeline = Pipeline(writer, changed)
    if reader.at_eof() or writer.transport.is_closing():
        pipeline.retire()
        raise ConnectionError("the server has closed the connection")
    return pipeline
