"""A row that PostgreSQL refuses is set aside, and the flush goes on; when its message ends, that counts."""

from collections.abc import Iterator

import pytest
from stores import NODES, World, message

from mqueue.broker.cache.calls import SettleArgs

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON message FOR EACH ROW WHEN (new.priority = 7) EXECUTE FUNCTION refuse();
"""


@pytest.fixture
def refusing(world: World) -> Iterator[World]:
    world.run(world.fresh())
    world.run(world.connection.execute(REFUSE))
    yield world
    world.run(world.connection.execute("DROP FUNCTION refuse CASCADE"))
    world.run(world.connection.execute("DELETE FROM refused"))


def _drift(world: World) -> int:
    return sum(abs(line[2] - sum(line[3:])) for line in world.run(world.store.ledger()))


def test_what_is_refused_is_set_aside_and_the_others_are_written(refusing: World) -> None:
    world, broker = refusing, refusing.brokers[1]
    broker.shard.next_sequence()
    made = [message(broker, next(world.ids), topic="t/a", priority=7 if n == 5 else 0, delay_us=0, ttl_us=0, max_retries=3) for n in range(12)]
    world.run(broker.batch([e for e, _ in made], [], logged=True, repeated=False))
    world.run(world.flusher.flush(world.lead, everything=True))
    assert len(world.run(world.rows())) == 11
    refused = world.run(_all(world, "SELECT id, reason FROM refused"))
    assert [id for id, _ in refused] == [made[5][1].id] and "not this one" in refused[0][1]
    assert _drift(world) == 0


def test_an_end_of_what_is_set_aside_counts(refusing: World) -> None:
    world, broker = refusing, refusing.brokers[1]
    world.run(world.cache.fetch(world.lead.epoch, NODES[0], ["t/a"], 1, 1000, False))
    world.run(world.prefetcher.refill(world.lead, ["t/a"]))  # opens the topic: what comes stays in Redis
    broker.shard.next_sequence()
    enqueue, r = message(broker, next(world.ids), topic="t/a", priority=7, delay_us=0, ttl_us=0, max_retries=3)
    world.run(broker.batch([enqueue], [], logged=True, repeated=False))
    world.run(world.flusher.flush(world.lead, everything=True))
    assert world.run(_all(world, "SELECT id, reason FROM refused"))
    broker.shard.next_sequence()
    cancel = SettleArgs(r.id.to_bytes(8), b"t/a", "cancel", b"", b"", b"")
    assert world.run(broker.batch([], [cancel], logged=True, repeated=False)).outcomes[0].verdict == b"o"
    world.run(world.flusher.flush(world.lead, everything=True))
    assert world.run(_all(world, "SELECT id, reason FROM refused")) == []
    [line] = [line for line in world.run(world.store.ledger()) if (line[0], line[1]) == ("t", "a")]
    assert (line[2], line[7], _drift(world)) == (1, 1, 0)


async def _all(world: World, query: str) -> list[tuple[int, str]]:
    return [(row[0], row[1]) for row in await (await world.connection.execute(query.encode())).fetchall()]
