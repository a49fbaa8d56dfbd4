"""One broker: the parts that `broker/app.py` builds, without HTTP, on a simulated machine. It is started, killed,
stopped, cut off.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mqueue.broker.cache.calls import Limits
from mqueue.broker.commit.committer import Committer
from mqueue.broker.daemons.leader import Leader
from mqueue.broker.daemons.scheduler import Scheduler
from mqueue.broker.engine.engine import Engine
from mqueue.broker.engine.fetch_waiters import Waiters
from mqueue.broker.faults import Fault
from mqueue.broker.metrics import Metrics
from mqueue.broker.recovery.membership import Membership
from mqueue.broker.shard import Shard
from mqueue.broker.slots import SLOTS, SlotMap
from mqueue.broker.wal.errors import WalError, WalFull
from mqueue.broker.wal.identity import Identity
from mqueue.broker.wal.ids import IdSource
from mqueue.broker.wal.log import ShardLog
from mqueue.errors import MQueueError

from .cache import SHARD, SimCache
from .disk import ForgetfulDisk
from .link import Link
from .loop import Killed, Owner, Thread, elapse
from .store import SimStore

if TYPE_CHECKING:
    from .world import World

T = TypeVar("T")
RENEW_IDS_S = 3.0
CALL_S = 20.0  # a client's patience
METRICS = Metrics()


def partial_fetches() -> float:
    """How many fetches have left topics out, at all brokers."""
    collected = METRICS.shard(SHARD).partial_fetches.collect()
    return sum(sample.value for metric in collected for sample in metric.samples if sample.name.endswith("_total"))


class Unknown(Exception):
    """What was asked may have happened, or not."""


@dataclass(slots=True)
class Config:
    """Of all brokers in a run."""

    limits: Limits
    flush_age_us: int
    segment_max: int
    keep_s: float
    idle_us: int = 20_000_000
    horizon_us: int = 8_000_000


class WallClock:
    """Wall time of one machine; monotonic time is everybody's."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.offset_us = 0

    def wall_us(self) -> int:
        return self._world.wall_us() + self.offset_us

    def monotonic(self) -> float:
        return self._world.loop.time()


class SimBroker:
    """`node`: once it is known. `engine`: while it serves requests."""

    def __init__(self, world: "World", name: str, directory: Path) -> None:
        self.world = world
        self.name = name
        self.directory = directory
        self.disk = ForgetfulDisk(directory, world.rng)
        self.clock = WallClock(world)
        self.node = 0
        self.owner: Owner | None = None
        self.engine: Engine | None = None
        self.shard: Shard | None = None
        self.restart_at: float | None = 0.0
        self.unwell_at = 0.0
        self.failed: BaseException | None = None
        self._identity: Identity | None = None
        self._leader: Leader | None = None
        self._committer: Committer | None = None
        self._main: asyncio.Task[None] | None = None
        directory.mkdir(parents=True)
        self.disk.sync_directory(directory.parent)
        self.disk.blown = lambda: world.loop.call_soon(self.lose_power)

    @property
    def alive(self) -> bool:
        return self.owner is not None and self.owner.alive

    @property
    def serves(self) -> bool:
        return self.alive and self.engine is not None and self.shard is not None and self.shard.serving.is_set()

    @property
    def is_well(self) -> bool:
        """Nothing keeps it from its part in a recovery."""
        owner = self.owner
        if owner is None or self.engine is None or owner.paused or owner.disk_s:
            return False
        return not any(link.cut or link.flaky or link.slow_s for link in (self.to_redis, self.to_postgres))

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        assert not self.alive
        self.restart_at = None
        owner = self.owner = Owner(self.name)
        self.to_redis = Link(self.world.redis, owner, self.world.rng, self.tell)
        self.to_postgres = Link(self.world.postgres, owner, self.world.rng, self.tell)
        self.tell("starts")
        self._main = self.world.loop.create_task(self._run(owner), context=owner.context)
        self._main.add_done_callback(lambda task: self._ended(task, owner))

    def tell(self, text: str) -> None:
        self.world.tell(self.name, text)

    async def _run(self, owner: Owner) -> None:
        """Raises what a broker's process would end with."""
        world, config, disk = self.world, self.world.config, self.disk
        self._identity = identity = await asyncio.to_thread(Identity.open, self.directory, disk=disk)
        store = SimStore(SHARD, world.postgres, self.to_postgres, world.rng)
        await store.create(1)
        registered = await store.register_broker(identity.uuid, identity.node)
        node = registered.node
        await asyncio.to_thread(identity.set_node, node)
        await asyncio.to_thread(identity.begin_after, max(registered.position, registered.started), registered.id_floor_ms)
        self.node = node
        ids = IdSource(node, identity, self.clock)
        start = identity.start_count << 40
        log = await asyncio.to_thread(
            ShardLog.open,
            identity.shard_directory(SHARD),
            SHARD,
            identity.uuid,
            segment_max=config.segment_max,
            keep_s=config.keep_s,
            disk=disk,
        )
        log._thread = cast(Any, Thread(world.loop))
        cache, admin = (SimCache(world.redis, self.to_redis) for _ in range(2))
        shard = Shard(
            SHARD, node, cache, store, log, self.clock, METRICS.shard(SHARD), start, sequence=start, buffer_max=config.limits.buffer_max
        )
        fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def fail(error: BaseException) -> None:
            if not fatal.done():
                fatal.set_exception(error)

        committer = Committer(shard, ids, fail)
        scheduler = Scheduler(ids, lease_s=10.0, max_retries=3)
        ages = {"flush_age_us": config.flush_age_us, "horizon_us": config.horizon_us, "idle_us": config.idle_us}
        leader = Leader(shard, admin, config.limits, scheduler, **ages)
        engine = Engine(
            [shard],
            [committer],
            SlotMap([0] * SLOTS),
            Waiters(),
            METRICS,
            self.clock,
            lease_s=10.0,
            max_retries=3,
            idempotency_s=86_400.0,  # more than clocks jump
            jitter=world.rng.random,
        )
        self._leader, self._committer, self.shard = leader, committer, shard
        parts = [Membership(shard).run(), leader.run(), committer.run(), engine.wake_loop(shard), self._renew_ids(ids)]
        tasks = [asyncio.create_task(part) for part in parts]
        for task in tasks:
            task.add_done_callback(lambda task: None if task.cancelled() or task.exception() is None else fail(cast(Any, task.exception())))
        serving = asyncio.create_task(shard.serving.wait())
        await asyncio.wait({fatal, serving}, return_when=asyncio.FIRST_COMPLETED)
        self.tell("serves requests")
        self.engine = engine
        await fatal

    def _ended(self, task: "asyncio.Task[None]", owner: Owner) -> None:
        """A process that ends by itself is started again after a while."""
        if not owner.alive or task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Killed):
            return
        self.tell(f"ends: {error!r}")
        if not isinstance(error, WalError | Fault):
            self.world.fail(f"{self.name} ended with {error!r}", error)
        if isinstance(error, WalError) and not isinstance(error, WalFull) and error.exit_code != 74:
            self.world.fail(f"{self.name} does not start: {error!r}", error)
        self.kill()

    async def _renew_ids(self, ids: IdSource) -> None:
        while True:
            with suppress(WalFull):
                await asyncio.to_thread(ids.renew)
            await elapse(RENEW_IDS_S)

    def heal(self) -> None:
        if self.owner is None:
            return
        for link in (self.to_redis, self.to_postgres):
            link.cut, link.flaky, link.slow_s = "", 0.0, 0.0
        self.owner.disk_s = 0.0
        if self.owner.paused:
            self.world.loop.resume(self.owner)

    # -- death ---------------------------------------------------------------------------------------------------------

    def kill(self, restart_s: float = 1.0) -> None:
        """kill -9: what it wrote stays in the page cache, its connections are closed by the kernel."""
        if self.owner is None or not self.owner.alive:
            return
        self.tell("is dead")
        self.engine = None
        self.world.loop.kill(self.owner)
        for connection in [c for c in self.world.postgres.lent if c._link is self.to_postgres]:
            connection.end()
        self._end(restart_s)

    def lose_power(self, restart_s: float = 1.0) -> None:
        """Nobody closes its connections: PostgreSQL notices later."""
        if self.owner is not None and self.owner.alive:
            self.engine = None
            self.world.loop.kill(self.owner)
            for connection in [c for c in self.world.postgres.lent if c._link is self.to_postgres]:
                connection.lose()
            self._end(restart_s)
        self.tell("loses power")
        self.disk.lose_power()
        self.world.checker.lost_power(self)

    def _end(self, restart_s: float) -> None:
        if self._identity is not None:
            self._identity.close()
            self._identity = None
        self.disk.end_process()
        self.disk.broken = False
        self.restart_at = self.world.loop.time() + restart_s

    async def stop(self, restart_s: float = 1.0) -> None:
        """SIGTERM, as `app.py` does it; by force when that takes too long."""
        owner, shard = self.owner, self.shard
        if owner is None or not owner.alive or self.engine is None or shard is None:
            return self.kill(restart_s)
        self.engine = None
        self.tell("stops")
        stopping = self.world.loop.create_task(self._stop(shard), context=owner.context)
        await asyncio.wait({stopping}, timeout=28.0)
        if self.owner is owner:
            self.kill(restart_s)

    async def _stop(self, shard: Shard) -> None:
        assert self._committer is not None and self._leader is not None
        await self._committer.stop()
        await self._leader.flush_all(15.0)
        flushed = await shard.flush_own(15.0)
        with suppress(Fault):
            await shard.store.leave(shard.node, flushed=flushed)
        with suppress(WalError):
            await asyncio.to_thread(shard.log.close)

    # -- requests ------------------------------------------------------------------------------------------------------

    async def call(self, what: Callable[[Engine], Awaitable[T]]) -> T:
        """Raises Unknown where the answer does not come, or says so."""
        owner, engine = self.owner, self.engine
        if owner is None or engine is None:
            raise Unknown("refused")
        task = self.world.loop.create_task(what(engine), context=owner.context)
        done, _ = await asyncio.wait({task}, timeout=CALL_S)
        if not done:
            task.cancel()
            raise Unknown("no answer")
        if task.cancelled() or isinstance(task.exception(), Killed | MQueueError):
            raise Unknown("cut" if task.cancelled() else repr(task.exception()))
        return cast(T, task.result())


def config_of(rng: random.Random) -> Config:
    cap = rng.choice([2, 3, 3, 20])
    delayed, buffer = rng.choice([3, 4, 50]), rng.choice([1 << 24, 1 << 24, 1 << 24, 6_000])
    limits = Limits(cap, cap + 1, delayed, buffer, buffer + (8_000 if cap == 2 else 1 << 24))  # some 18 messages fill a small one
    return Config(limits, rng.choice([250_000, 1_000_000, 3_000_000]), rng.choice([300, 1_500, 10_000]), rng.choice([0.0, 1.0, 60.0]))
