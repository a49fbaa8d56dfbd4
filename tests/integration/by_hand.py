"""What the tests of one operation do to a shard that is driven by hand: one topic, a batch a call."""

from typing import Any

from stores import SECOND, World, message

from mqueue.broker.cache.calls import SettleArgs
from mqueue.broker.format import record

TOPIC = "t/a"


def serve(world: World) -> None:
    for broker in world.brokers.values():
        broker.shard.serving.set()
        broker.shard.looked_at = broker.shard.clock.monotonic()


def enqueue(world: World, count: int = 1, *, delay: int = 0, ttl: int = 0) -> list[int]:
    """Ids. Seconds, 0: none."""
    broker = world.brokers[1]
    broker.shard.next_sequence()
    made = [
        message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=delay * SECOND, ttl_us=ttl * SECOND, max_retries=3)
        for _ in range(count)
    ]
    world.run(broker.batch([e for e, _ in made], [], logged=True, repeated=False))
    return [r.id for _, r in made]


def flush(world: World) -> None:
    world.run(world.flusher.flush(world.lead, everything=True))


def fetch(world: World, limit: int = 1, lease_s: int = 20) -> list[record.Record]:
    """What is deliverable now."""
    while True:
        got = world.run(world.cache.fetch(world.lead.epoch, 1, [TOPIC], limit, lease_s * 1000, False))
        if got.status == "ok":
            return [record.unpack(data) for data in got.records]
        if got.status == "nothing":
            return []
        world.run(world.work([TOPIC]))


def ending(r: record.Record, kind: str, delays: bytes = b"") -> SettleArgs:
    return SettleArgs(r.id.to_bytes(8), TOPIC.encode(), kind, r.receipt, b"", delays)


def settle(world: World, r: record.Record, kind: str, delays: bytes = b"") -> Any:
    """By the other broker. Returns the outcome."""
    broker = world.brokers[2]
    broker.shard.next_sequence()
    return world.run(broker.batch([], [ending(r, kind, delays)], logged=True, repeated=False)).outcomes[0]
