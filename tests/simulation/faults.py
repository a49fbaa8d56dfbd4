"""What goes wrong, and when. Each seed has a few kinds of fault only: some bugs need the others to keep away."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from .broker import SimBroker
from .link import Link
from .loop import elapse

if TYPE_CHECKING:
    from .world import World


REFUSES = 0.2  # of the seeds have a Redis that refuses, too
KEPT_S = 10.0  # past what it forgets
FORGETS = 0.15  # have a PostgreSQL that forgets


class Faults:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshot: list[tuple[bytes, bytes]] = []
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.kill, self.power_loss, self.power_amid_write, self.stop, self.pause,
            self.redis_forgets, self.redis_restarts, self.redis_goes_back, self.redis_is_away, self.script_fails,
            self.postgres_restarts, self.postgres_is_away, self.postgres_fails_over,
            self.cut, self.slow, self.flaky,
            self.disk_full, self.disk_breaks, self.disk_slow, self.broker_clock_jumps, self.redis_clock_jumps,
        ]  # fmt: skip
        refusals = [self.redis_is_full, self.redis_is_a_replica, self.postgres_goes_back]
        self.kinds = self._rng.sample(kinds, self._rng.choice([1, 2, 3, 4, 6, 8]))
        if world.kinds:
            self.kinds = [kind for kind in (*kinds, *refusals) if kind.__name__ in world.kinds]
        elif (apart := random.Random(world.seed)).random() < REFUSES:  # so that other seeds tell the story that they told before
            self.kinds.append(apart.choice(refusals[:2]))
        if not world.kinds and random.Random(f"{world.seed} forgets").random() < FORGETS:
            self.kinds.append(self.postgres_goes_back)
        self._pause_s = self._rng.choice([0.7, 2.0, 5.0])

    async def run(self, until: float) -> None:
        loop, rng = self._world.loop, self._rng
        await elapse(rng.uniform(0.5, 4))
        while loop.time() < until:
            kind = rng.choice(self.kinds)
            self._world.count(kind.__name__)
            self._world.tell("world", f"fault: {kind.__name__}")
            self._tasks.append(loop.create_task(kind()))
            await elapse(rng.expovariate(1 / self._pause_s))

    def end(self) -> None:
        """Those that would end by themselves later."""
        for task in self._tasks:
            task.cancel()

    def _broker(self) -> SimBroker:
        return self._rng.choice(self._world.brokers)

    def _while_s(self) -> float:
        return self._rng.choice([0.3, 1.5, 4.0, 12.0]) * self._rng.uniform(0.5, 1.5)

    def _restart_s(self) -> float:
        return self._rng.choice([0.05, 0.5, 3.0, 10.0, 20.0])

    # -- brokers -------------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        self._broker().kill(self._restart_s())

    async def power_loss(self) -> None:
        for broker in self._rng.sample(self._world.brokers, self._rng.choice([1, 1, 1, len(self._world.brokers)])):
            broker.lose_power(self._restart_s())

    async def power_amid_write(self) -> None:
        self._broker().disk.fuse = self._rng.randint(1, 12)

    async def stop(self) -> None:
        await self._broker().stop(self._restart_s())

    async def pause(self) -> None:
        owner = self._broker().owner
        if owner is None or not owner.alive or owner.paused:
            return
        owner.paused = True
        await elapse(self._rng.choice([self._while_s(), 20.0]))
        self._world.loop.resume(owner)

    # -- stores --------------------------------------------------------------------------------------------------------

    async def redis_forgets(self) -> None:
        self._world.redis.forget()

    async def redis_restarts(self) -> None:
        self._world.redis.restart()

    async def redis_goes_back(self) -> None:
        """Restarted from an old file."""
        self._snapshot = self._world.redis.snapshot()
        await elapse(self._rng.uniform(0.0, 3.0))
        self._world.redis.restart(self._snapshot)

    async def redis_is_away(self) -> None:
        redis = self._world.redis
        redis.up = False
        await elapse(self._while_s())
        if self._rng.random() < 0.5:
            redis.restart()
        redis.up = True

    async def redis_is_full(self) -> None:
        redis = self._world.redis
        redis.limit(full=True)
        try:
            await elapse(self._while_s())
        finally:
            redis.limit(full=False)

    async def redis_is_a_replica(self) -> None:
        """It answers, and takes no writes."""
        redis = self._world.redis
        redis.read_only = True
        try:
            await elapse(self._while_s())
        finally:
            redis.read_only = False

    async def postgres_restarts(self) -> None:
        self._world.postgres.restart()

    async def postgres_is_away(self) -> None:
        postgres = self._world.postgres
        postgres.up = False
        postgres.restart()
        await elapse(self._while_s())
        postgres.up = True

    async def postgres_fails_over(self) -> None:
        """To a copy that has it all."""
        self._world.postgres.restart()
        self._world.postgres.timeline += 1

    async def postgres_goes_back(self) -> None:
        """It forgets some seconds, its timeline as it is. Not where logs are not kept past their flush, something came
        past Redis meanwhile, or an epoch has ended: what is in no log is lost then. Nor where it went back meanwhile:
        it does not return to what it has forgotten.
        """
        world = self._world
        if world.config.keep_s < KEPT_S:
            return
        was = world.checker.epoch, "hot"
        copies, life = world.postgres.snapshot(), world.postgres.life
        for _ in range(self._rng.randint(2, 30)):
            modes = {broker.shard.mode for broker in world.brokers if broker.alive and broker.shard is not None}
            if (world.checker.epoch, world.checker.mode) != was or modes - {"hot"} or not world.postgres.up or world.postgres.life != life:
                return
            await elapse(0.1)
        world.count("PostgreSQL went back")
        world.postgres.go_back(copies)
        world.checker.went_back()

    async def script_fails(self) -> None:
        self._world.redis.failing = self._rng.randint(1, 20)

    # -- between them --------------------------------------------------------------------------------------------------

    def _links(self) -> list[Link]:
        broker = self._broker()
        if broker.owner is None:
            return []
        return self._rng.choice([[broker.to_redis], [broker.to_postgres], [broker.to_redis, broker.to_postgres]])

    async def cut(self) -> None:
        links = self._links()
        how = self._rng.choice(["reset", "drop"])
        for link in links:
            link.cut = how  # type: ignore[assignment]
        await elapse(self._rng.choice([self._while_s(), self._while_s(), 75.0]))
        for link in links:
            link.cut = ""

    async def slow(self) -> None:
        links = self._links()
        for link in links:
            link.slow_s = self._rng.choice([0.1, 1.0, 3.0])
        await elapse(self._while_s())
        for link in links:
            link.slow_s = 0.0

    async def flaky(self) -> None:
        links = self._links()
        for link in links:
            link.flaky = self._rng.choice([0.02, 0.1, 0.3])
        await elapse(self._while_s())
        for link in links:
            link.flaky = 0.0

    # -- disks and clocks ----------------------------------------------------------------------------------------------

    async def disk_full(self) -> None:
        disk = self._broker().disk
        disk.full = True
        await elapse(self._while_s())
        disk.full = False

    async def disk_breaks(self) -> None:
        self._broker().disk.broken = True

    async def disk_slow(self) -> None:
        owner = self._broker().owner
        if owner is not None:
            owner.disk_s = self._rng.choice([0.05, 0.5, 2.0])
            await elapse(self._while_s())
            owner.disk_s = 0.0

    async def broker_clock_jumps(self) -> None:
        self._world.history.clocks_jumped = True
        self._broker().clock.offset_us += int(self._rng.choice([-3600, -5, 5, 3600]) * 1e6)

    async def redis_clock_jumps(self) -> None:
        self._world.history.clocks_jumped = True
        self._world.redis.offset_us += int(self._rng.choice([-3600, -5, 5, 3600]) * 1e6)
