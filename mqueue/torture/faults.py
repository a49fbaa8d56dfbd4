"""These faults are done to a run. Each leaves everything running again, and says what it took: whether Redis
forgot, who was away.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from mqueue.broker.failpoints import NAMES
from mqueue.torture.damage import Damage
from mqueue.torture.forgetting import postgres_forgets
from mqueue.torture.proxy import Proxy
from mqueue.torture.refusing import postgres_refuses
from mqueue.torture.stage import Broker, Stage
from mqueue.torture.topics import many_topics

OF_LEADERS = ("flush.", "refill.", "recovery.before_open")  # only a leader gets there: the other broker is stopped
# these are not reached within seconds, or not at all, since the load has no schedules
SELDOM = {"wal.rotate", "wal.before_remove", "schedule.before_insert", "schedule.before_commit", "schedule.after_commit"}
REACH_S = 6.0
DOWN_S = 3.0


Fault = Callable[[Stage, random.Random], Awaitable[Damage]]


def _any(stage: Stage, chance: random.Random) -> Broker:
    return chance.choice(stage.brokers)


async def broker_kill(stage: Stage, chance: random.Random) -> Damage:
    return await _kill(_any(stage, chance), chance)


async def leader_kill(stage: Stage, chance: random.Random) -> Damage:
    return await _kill(await stage.leader(), chance)


async def _kill(broker: Broker, chance: random.Random) -> Damage:
    await broker.kill()
    await asyncio.sleep(chance.random() * DOWN_S)
    await broker.start()
    return Damage(down=frozenset({broker.number}))


async def broker_stop(stage: Stage, chance: random.Random) -> Damage:
    broker = _any(stage, chance)
    await broker.stop()
    await broker.start()
    return Damage()


async def broker_pause(stage: Stage, chance: random.Random) -> Damage:
    """SIGSTOP holds a broker for longer than a heartbeat, a lease, and the time for which it may
    trust its last look.
    """
    broker = await stage.leader() if chance.random() < 0.5 else _any(stage, chance)
    broker.pause()
    try:
        await asyncio.sleep(0.5 + chance.random() * 4)
    finally:
        broker.resume()
    return Damage(down=frozenset({broker.number}))


async def redis_flush(stage: Stage, chance: random.Random) -> Damage:
    for _ in range(chance.randint(1, 3)):
        await stage.flush_redis()
        await asyncio.sleep(chance.random() * 0.3)
    return Damage(lost=True)


async def redis_kill(stage: Stage, chance: random.Random) -> Damage:
    """Redis comes back empty."""
    stage.kill_redis()
    await asyncio.sleep(1.0)
    return Damage(lost=True)


async def redis_away(stage: Stage, chance: random.Random) -> Damage:
    """No broker reaches Redis, so PostgreSQL serves; Redis comes back with what it had, which counts no more."""
    for broker in stage.brokers:
        broker.redis.cut()
    await asyncio.sleep(3.0 + chance.random() * 4)
    cold = [await stage.metric(broker, "mqueue_cold") for broker in stage.brokers]
    for broker in stage.brokers:
        broker.redis.heal()
    return Damage(lost=True, reached=1.0 in cold)


async def redis_full(stage: Stage, chance: random.Random) -> Damage:
    """Redis holds more than it may, for a moment or for longer: only what is new is refused, and nothing is lost."""
    before = [await stage.metric(broker, "mqueue_epoch") for broker in stage.brokers]
    await stage.tell_redis("CONFIG", "SET", "maxmemory", "1")
    try:
        await asyncio.sleep(chance.choice((0.3, 4.0)) + chance.random() * 4)
    finally:
        await stage.tell_redis("CONFIG", "SET", "maxmemory", "0")
    after = [await stage.metric(broker, "mqueue_epoch") for broker in stage.brokers]
    return Damage(note="" if before == after else "an epoch ended", reached=before == after)


async def redis_readonly(stage: Stage, chance: random.Random) -> Damage:
    """Redis becomes a replica of nobody: it answers, and takes no writes. For a moment, or until PostgreSQL serves."""
    await stage.tell_redis("REPLICAOF", "127.0.0.1", "1")
    try:
        await asyncio.sleep(chance.choice((0.1, 3.0)) + chance.random() * 4)
    finally:
        await stage.tell_redis("REPLICAOF", "NO", "ONE")
    return Damage(lost=True)


async def shard_away(stage: Stage, chance: random.Random) -> Damage:
    """One shard of several is away with both its stores, and comes back without what Redis had."""
    shards = len(stage.urls.database_urls)
    if shards == 1:
        return Damage(reached=False)
    async with stage.without_shard(chance.randrange(shards)):
        await asyncio.sleep(1.0 + chance.random() * 6)
    return Damage(lost=True)


async def redis_and_broker(stage: Stage, chance: random.Random) -> Damage:
    """Redis forgets while a broker is away, whose log then comes late, or just in time."""
    broker = _any(stage, chance)
    await broker.kill()
    await stage.flush_redis()
    await asyncio.sleep(chance.choice((0.0, 1.0, 4.0)) + chance.random())
    await broker.start()
    return Damage(lost=True, down=frozenset({broker.number}))


async def postgres_kill(stage: Stage, chance: random.Random) -> Damage:
    stage.kill_postgres()
    await asyncio.sleep(1.5)
    return Damage()


def on_link(link: Callable[[Broker], Proxy], harm: Callable[[Proxy], None], seconds: float) -> Fault:
    """Returns a fault that harms one broker's connections to a store for up to so long."""

    async def fault(stage: Stage, chance: random.Random) -> Damage:
        broker = await stage.leader() if chance.random() < 0.5 else _any(stage, chance)
        harm(link(broker))
        await asyncio.sleep(0.2 + chance.random() * seconds)
        link(broker).heal()
        return Damage(down=frozenset({broker.number}))

    return fault


async def failpoint(stage: Stage, chance: random.Random) -> Damage:
    """A broker kills itself at a chosen point: also of its recovery, while Redis forgets."""
    broker = _any(stage, chance)
    point = chance.choice(sorted(NAMES - SELDOM))
    lost = point.startswith("recovery.")
    await broker.stop()
    await broker.start(f"{point}=kill@{chance.randint(1, 20) if not lost else 1}")
    others = [other for other in stage.brokers if other is not broker] if point.startswith(OF_LEADERS) else []
    for other in others:
        await other.stop()
    if lost:
        await stage.flush_redis()
    reached = await broker.ended(REACH_S)
    if not reached:
        await broker.kill()
    for each in (broker, *others):
        await each.start()
    return Damage(lost=lost, down=frozenset({broker.number}), reached=reached, note=point)


FAULTS: dict[str, Fault] = {
    "broker-kill": broker_kill,
    "leader-kill": leader_kill,
    "broker-stop": broker_stop,
    "broker-pause": broker_pause,
    "redis-flush": redis_flush,
    "redis-kill": redis_kill,
    "redis-away": redis_away,
    "redis-full": redis_full,
    "redis-readonly": redis_readonly,
    "shard-away": shard_away,
    "redis-and-broker": redis_and_broker,
    "redis-cut": on_link(lambda broker: broker.redis, Proxy.cut, 4.0),
    "redis-stall": on_link(lambda broker: broker.redis, Proxy.stall, 7.0),
    "postgres-kill": postgres_kill,
    "postgres-cut": on_link(lambda broker: broker.postgres, Proxy.cut, 4.0),
    "postgres-stall": on_link(lambda broker: broker.postgres, Proxy.stall, 7.0),
    "postgres-forgets": postgres_forgets,
    "postgres-refuses": postgres_refuses,
    "many-topics": many_topics,
    "failpoint": failpoint,
}
