"""A row that PostgreSQL refuses is set aside: the flush, a replay and the cold path go on. When its message ends, that
counts.
"""

import asyncio
from collections.abc import Iterator

import pytest
from leading import kept_cold
from stores import NODES, World, logged, message

from mqueue.broker.cache.calls import Enqueue, SettleArgs
from mqueue.broker.commit import cold
from mqueue.broker.commit.batch import Batch, Draft, EnqueueRequest
from mqueue.broker.format import entries, log_record, record, tail
from mqueue.broker.format.entries import Settled
from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.format.record import Record
from mqueue.broker.shard import COLD
from mqueue.broker.store.cold import Fresh
from mqueue.broker.store.replay import replay
from mqueue.broker.wal.ids import IdSource
from mqueue.clock import SystemClock
from mqueue.errors import Invalid
from tests.waiting import until

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON message FOR EACH ROW WHEN (new.priority = 7) EXECUTE FUNCTION refuse();
CREATE TRIGGER refuse BEFORE INSERT ON dead_letter FOR EACH ROW WHEN (new.priority = 5) EXECUTE FUNCTION refuse();
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


def test_a_unique_index_of_the_users_own_refuses_one_row_alone(refusing: World) -> None:
    world, broker = refusing, refusing.brokers[1]
    world.run(world.connection.execute("CREATE UNIQUE INDEX users_own ON message (priority) WHERE priority = 6"))
    try:
        broker.shard.next_sequence()
        made = [message(broker, next(world.ids), topic="t/a", priority=p, delay_us=0, ttl_us=0, max_retries=3) for p in (6, 6, 0, 0, 0)]
        world.run(broker.batch([e for e, _ in made], [], logged=True, repeated=False))
        world.run(world.flusher.flush(world.lead, everything=True))
        assert (len(world.run(world.rows())), len(world.run(_all(world, "SELECT id, reason FROM refused")))) == (4, 1)
        assert _drift(world) == 0
    finally:
        world.run(world.connection.execute("DROP INDEX users_own"))


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


def test_a_replay_goes_on(refusing: World) -> None:
    world, broker = refusing, refusing.brokers[1]
    made = [_message(world, 7 if n in (5, 6) else 0) for n in range(12)]
    world.run(broker.batch([e for e, _ in made], [], logged=True, repeated=False))
    world.run(world.lose_redis(True, NODES))
    assert set(world.run(world.rows())) == {r.id for n, (_, r) in enumerate(made) if n not in (5, 6)}
    assert [id for id, _ in world.run(_all(world, "SELECT id, reason FROM refused ORDER BY id"))] == [made[5][1].id, made[6][1].id]
    assert _drift(world) == 0


def test_a_replay_takes_back_what_has_ended(refusing: World) -> None:
    """It was set aside by a flush, and acked at another broker, which has that in its log alone."""
    world, broker = refusing, refusing.brokers[1]
    enqueue, r = _message(world, 7)
    world.run(broker.batch([enqueue], [], logged=True, repeated=False))
    world.run(world.flusher.flush(world.lead, everything=True))
    assert world.run(_all(world, "SELECT id, reason FROM refused"))
    ack = Settled(r.id, b"a", r.version + 1, 0, 0, 1, broker.shard.sequence, 1, b"t/a", b"")
    told = tail.fold([LogRecord(1, world.lead.epoch, log_record.OUTCOME, entries.pack_settled([ack]))])
    world.run(world.connection.execute("UPDATE shard SET mode = 'recovering'"))
    world.run(replay(world.store, world.lead.epoch, 2, told, clock=0, late=False))
    assert world.run(_all(world, "SELECT id, reason FROM refused")) == []
    ledger = world.run(world.ledger())
    assert (ledger["enqueued"], ledger["acked"], _drift(world)) == (1, 1, 0)


def test_a_replay_of_what_was_set_aside_in_a_later_version_changes_nothing(refusing: World) -> None:
    world = refusing
    enqueue, r = _message(world, 7)
    told = tail.fold([LogRecord(1, world.lead.epoch, log_record.ENQUEUE, entries.pack_enqueued(logged([enqueue])))])
    world.run(replay(world.store, world.lead.epoch, 1, told, clock=0, late=True))
    world.run(world.connection.execute("UPDATE refused SET version = 3"))
    told = tail.fold([LogRecord(2, world.lead.epoch, log_record.ENQUEUE, entries.pack_enqueued(logged([enqueue])))])
    world.run(replay(world.store, world.lead.epoch, 1, told, clock=0, late=True))
    assert world.run(_all(world, "SELECT id, reason FROM refused WHERE version = 3"))[0][0] == r.id
    assert _drift(world) == 0


def test_the_cold_path_tells_who_enqueued_it_and_takes_the_others(refusing: World) -> None:
    world, shard = refusing, refusing.brokers[1].shard

    async def answers() -> list[object]:
        async with kept_cold(world):
            shard.mode = COLD
            loop = asyncio.get_running_loop()
            requests = [EnqueueRequest([_draft(p)], 10, loop.create_future()) for p in (0, 7, 1)]
            await cold.commit(shard, IdSource(shard.node, Floor(), SystemClock()), Batch(enqueues=requests))
            return await asyncio.gather(*(request.done for request in requests), return_exceptions=True)

    first, second, third = world.run(answers())
    assert isinstance(second, Invalid) and "not this one" in str(second)
    assert isinstance(first, list) and isinstance(third, list)
    assert set(world.run(world.rows())) == {first[0], third[0]}
    assert (_drift(world), world.run(_all(world, "SELECT id, reason FROM refused"))) == (0, [])


def test_a_cold_shard_goes_on_past_a_dead_letter_that_is_refused(refusing: World) -> None:
    world = refusing

    async def go_on() -> tuple[int, int]:
        async with kept_cold(world) as store:
            world.brokers[1].shard.clocks.saw(0, (await world.store.row()).clock_us, world.time.monotonic())
            poison, other = (
                message(world.brokers[1], next(world.ids), topic="n/a", priority=p, delay_us=0, ttl_us=0, max_retries=0) for p in (5, 0)
            )
            await store.enqueue(world.lead.epoch, 0, "cold", lambda *_: Fresh([(e.record, e.body) for e, _ in (poison, other)]))
            assert len((await store.fetch(world.lead.epoch, 0, "n", ["a"], 10, 50, 1 << 20))[0]) == 2
            await until(world.rows, "both leases have ended", enough=lambda rows: not rows)
            return poison[1].id, other[1].id

    poison, other = world.run(go_on())
    assert world.run(_all(world, "SELECT id, reason FROM refused"))[0][0] == poison
    assert world.run(_all(world, "SELECT id, error FROM dead_letter"))[0][0] == other
    assert _drift(world) == 0


class Floor:
    id_floor_ms = 0

    def reserve_ids(self, until_ms: int) -> None:
        self.id_floor_ms = until_ms


def _draft(priority: int) -> Draft:
    body = record.body(0, b"", None, None)[record.CREATED.size :]
    return Draft(b"t/a", priority, body, None, 0, 0, 3, 30_000)


def _message(world: World, priority: int) -> tuple[Enqueue, Record]:
    world.brokers[1].shard.next_sequence()
    return message(world.brokers[1], next(world.ids), topic="t/a", priority=priority, delay_us=0, ttl_us=0, max_retries=3)


async def _all(world: World, query: str) -> list[tuple[int, str]]:
    return [(row[0], row[1]) for row in await (await world.connection.execute(query.encode())).fetchall()]
