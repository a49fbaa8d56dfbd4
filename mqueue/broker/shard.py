"""A Shard is one shard as this broker sees it: its adapters, the epoch it works in, and its mode.
`recovery/membership.py` decides on epoch and mode, everybody else reads them.

Modes: *hot*, Redis serves; *cold*, PostgreSQL serves; *apart*, Redis serves, but this broker cannot reach it: it only
takes enqueues, which go through PostgreSQL.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Literal, cast

import structlog

from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.faults import Fault, Refusal, StoreLost
from mqueue.broker.metrics import ShardMetrics
from mqueue.broker.shard_clock import ShardClock
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.wal.ids import node_of
from mqueue.broker.wal.log import ShardLog
from mqueue.clock import Clock
from mqueue.errors import Unavailable
from mqueue.message import Readiness

SERVING_WAIT_S = 5.0
FLUSH_PAUSE_S = 0.02
FLUSH_WAIT_S = 5.0  # whoever must have something in PostgreSQL before it answers waits so long
ALONE_S = 60.0  # so long a broker that cannot look at the shard row goes on in its epoch; after that others may have opened a cold one
SILENT_S = 3.0  # PostgreSQL is said to be away
HOT, COLD, APART = "hot", "cold", "apart"

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Shard:
    """One shard as this broker sees it. `epoch` 0: none, nothing can be served. `previous`: the sequence Redis applied
    last for this broker.
    """

    number: int
    node: int
    cache: ReadyCache
    store: ShardStore
    log: ShardLog
    clock: Clock
    metrics: ShardMetrics
    start: int  # first sequence of this life of the broker
    epoch: int = 0
    mode: str = HOT
    refusal: Refusal | None = Refusal.SILENT  # of Redis, when a write was last tried; None: it took it
    looked_at: float = 0.0  # at the shard row, monotonic
    previous: int = 0
    sequence: int = 0
    buffered: int = 0  # the last sequence of this broker that came into the write-behind buffer of this epoch; 0: none
    clocks: ShardClock = field(init=False)
    buffer: int = 0
    buffer_max: int = 0
    position: int = 0  # the last sequence of this broker that PostgreSQL has, as far as it is known here
    wal_full: bool = False  # the last commit found no room
    doubtful: int = 0  # the last sequence whose enqueues are in Redis, but not in the log
    coming: int = 0  # bytes of the enqueues under way: they will be in the buffer
    keys_until: int = 0  # until then a key of a whole request may be in PostgreSQL alone, by the shard clock
    serving: asyncio.Event = field(default_factory=asyncio.Event)
    suspect: asyncio.Event = field(default_factory=asyncio.Event)  # somebody saw the epoch gone: look now
    due: asyncio.Event = field(default_factory=asyncio.Event)  # something is due sooner than its leader thought
    room: asyncio.Event = field(default_factory=asyncio.Event)  # the buffer has shrunk
    flushing: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_flight: asyncio.Lock = field(default_factory=asyncio.Lock)  # held around a batch; membership takes it to change the epoch

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence

    def __post_init__(self) -> None:
        self.clocks = ShardClock(self.clock.monotonic)

    def saw_cold_clock(self, clock: int) -> None:
        """Takes the clock that a transaction past Redis told: a tick that was late says less than what is
        known here.
        """
        self.clocks.saw(0, max(clock, self.now_us()), self.clock.monotonic())

    @property
    def clock_us(self) -> int:
        """The shard clock, as an answer told it last."""
        return self.clocks.told

    def now_us(self) -> int:
        """Returns the shard clock, as far as this broker can tell between two answers: at least."""
        return self.clocks.least_us()

    def wall_us(self) -> int:
        """Returns the wall time by which schedules come: this broker's, or the shard clock where that is later, since
        a wall clock that is behind alone must stop nothing. Whoever asks takes the lesser of it and PostgreSQL's.
        """
        return max(self.clock.wall_us(), self.now_us())

    def lost(self) -> None:
        """Stops serving, since the epoch is gone, and has the shard row looked at."""
        self.serving.clear()
        self.suspect.set()

    def set_aside(self, rows: int) -> None:
        """Tells that PostgreSQL has refused so many rows, which are set aside."""
        if rows:
            logger.error("PostgreSQL has refused rows: they are set aside, see the table refused", shard=self.number, count=rows)
            self.metrics.refused.inc(rows)

    @property
    def reaches(self) -> bool:
        """Does Redis serve this broker? A full one serves all but what is new."""
        return self.refusal in (None, Refusal.FULL)

    @property
    def buffers(self) -> bool:
        """May what was last enqueued here wait for its flush?"""
        return self.mode == HOT or (self.mode == APART and self.position < self.previous)

    async def hurry_flush(self) -> None:
        """Asks the leader, if it can be heard of in Redis, to flush what is there, and gives it a moment. Raises
        CacheLost.
        """
        if self.mode == HOT:
            await self.cache.ask_flush()
        await asyncio.sleep(FLUSH_PAUSE_S)

    async def until_flushed(self, sequence: int, seconds: float) -> None:
        """Waits until PostgreSQL has all of this broker's up to `sequence`. One task looks, the others wait for it.
        Raises StoreLost past `seconds`.
        """
        deadline = self.clock.monotonic() + seconds
        while self.position < sequence:
            if self.clock.monotonic() > deadline:
                raise StoreLost("the flush does not come")
            async with self.flushing:
                if self.position < sequence:
                    self.position = max(self.position, await self.store.position(self.node))
                if self.position < sequence:
                    await self.hurry_flush()

    async def flush_own(self, seconds: float) -> bool:
        """Waits until PostgreSQL has all that this broker brought into the write-behind buffer, whoever leads. Returns
        False where that does not come in time: then only Redis and this broker's log have the rest.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.until_flushed(self.buffered, seconds)
        except (Fault, TimeoutError):
            return False
        return True

    async def may_get(self, id: int) -> bool:
        """May a message be here that was not found just now? The broker that took it may have replayed its log since.
        Raises Unavailable where that broker is away still, or the shard is between two epochs: nobody may say that it
        is gone. Raises StoreLost.
        """
        if not self.serving.is_set():
            raise Unavailable(f"shard {self.number} is recovering, and may have message {id}", retry_after=2)
        node = node_of(id)
        if node == self.node:
            return False
        if await self.store.is_away(node, self.epoch):
            raise Unavailable(f"the broker that took message {id} (node {node}) is away, and its log may have it", retry_after=5)
        return True

    def readiness(self) -> Readiness:
        now = self.clock.monotonic()
        wal: Literal["ok", "full", "broken"] = "broken" if self.log.broken else "full" if self.wal_full else "ok"
        serving = self.serving.is_set() and now - self.looked_at <= ALONE_S
        serves = serving and (self.mode == COLD or (self.mode == HOT and wal == "ok" and self.reaches))
        mode = cast(Literal["hot", "cold", "apart"], self.mode) if serving else "recovering"
        return Readiness(self.number, serves, mode, self.refusal.value if self.refusal else "ok", now - self.looked_at <= SILENT_S, wal)

    def keys_are_away(self) -> Unavailable:
        """Returns what an enqueue with an idempotency key, or a unique one, is told while this broker is apart."""
        return Unavailable(
            f"Redis of shard {self.number} cannot be reached from here, and it holds the idempotency and unique keys", retry_after=1
        )

    async def wait_serving(self) -> None:
        """Raises Unavailable when the shard does not serve within a few seconds."""
        if self.clock.monotonic() - self.looked_at > ALONE_S:
            self.serving.clear()
        if not self.serving.is_set():
            try:
                async with asyncio.timeout(SERVING_WAIT_S):
                    await self.serving.wait()
            except TimeoutError:
                raise Unavailable(f"shard {self.number} is recovering", retry_after=2) from None
