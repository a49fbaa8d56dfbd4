"""What a log brings back into PostgreSQL, where the order machine cannot look: keys whose time is over, epochs that
have opened meanwhile.
"""

import asyncio
import uuid

import pytest
from by_hand import enqueue as put
from by_hand import fetch, serve
from stores import NODES, NUMBER, SECOND, World, keyed, logged, message

from mqueue.broker.cache import keys
from mqueue.broker.cache.calls import Enqueue, SettleArgs
from mqueue.broker.faults import EpochEnded, Overtaken
from mqueue.broker.format import entries, log_record, record, tail
from mqueue.broker.format.entries import Settled
from mqueue.broker.format.log_record import LogRecord
from mqueue.broker.store.replay import replay
from mqueue.broker.store.seats import Registered

TOPIC = "t/a"


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.run(world.fresh())


def enqueues(world: World, node: int, count: int = 1) -> tuple[list[Enqueue], list[int]]:
    broker = world.brokers[node]
    broker.shard.next_sequence()
    made = [message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=3) for _ in range(count)]
    return [e for e, _ in made], [r.id for _, r in made]


def told(world: World, node: int, some: list[Enqueue]) -> tail.Tail:
    payload = entries.pack_enqueued(logged(some))
    return tail.fold([LogRecord(world.brokers[node].shard.sequence, world.lead.epoch, log_record.ENQUEUE, payload)])


def test_a_replay_that_comes_after_the_opening_writes_nothing_unannounced(world: World) -> None:
    some, _ = enqueues(world, 1)
    with pytest.raises(EpochEnded):
        world.run(replay(world.store, world.lead.epoch, 1, told(world, 1, some), clock=0, late=False))
    assert world.run(world.rows()) == {}
    world.run(replay(world.store, world.lead.epoch, 1, told(world, 1, some), clock=0, late=True))
    assert len(world.run(world.leader.pages.arrivals(0, 10))[0]) == 1


def test_what_somebody_else_has_replayed_is_not_replayed_again(world: World) -> None:
    """It may have come out and been acked in between: its row must not rise again."""
    some, (id,) = enqueues(world, 1)
    epoch, last = world.lead.epoch, world.brokers[1].shard.sequence
    with pytest.raises(Overtaken):
        world.run(replay(world.store, epoch, 1, told(world, 1, some), clock=0, late=True, after=5))
    assert world.run(world.rows()) == {}
    world.run(replay(world.store, epoch, 1, told(world, 1, some), clock=0, late=True, after=0))
    assert list(world.run(world.rows())) == [id]
    world.run(world.connection.execute("DELETE FROM message"))
    with pytest.raises(Overtaken):
        world.run(replay(world.store, epoch, 1, told(world, 1, some), clock=0, late=True, after=0))
    world.run(replay(world.store, epoch, 1, tail.Tail(), clock=0, late=True, after=last))
    assert world.run(world.rows()) == {}


def test_a_key_used_again_after_its_time_is_no_duplicate(world: World) -> None:
    some, (id,) = enqueues(world, 1)
    [e] = keyed(world.brokers[1], some, "k", whole=False)
    long_ago = world.brokers[1].shard.clocks.due_clock - 10 * SECOND
    world.run(
        world.connection.execute(
            "INSERT INTO idempotency (key_hash, body_hash, id, expires_at_us) VALUES (%s, %s, 7, %s)", (e.key_hash, bytes(16), long_ago)
        )
    )
    world.run(replay(world.store, world.lead.epoch, 1, told(world, 1, [e]), clock=0, late=True))
    assert list(world.run(world.rows())) == [id]


def test_orphans_wait_until_the_last_part_of_a_log(world: World) -> None:
    """The ack of a message came before its enqueue, which lies in a later part of its broker's log."""
    first, _ = enqueues(world, 2)
    part_1 = told(world, 2, first)
    second, (acked,) = enqueues(world, 2)
    part_2 = told(world, 2, second)
    epoch = world.lead.epoch
    ack = Settled(acked, b"a", 2, 0, 0, 2, world.brokers[2].shard.sequence, 1, TOPIC.encode(), b"")
    outcome = tail.fold([LogRecord(1, epoch, log_record.OUTCOME, entries.pack_settled([ack]))])
    world.run(world.connection.execute("UPDATE shard SET mode = 'recovering'"))
    world.run(replay(world.store, epoch, 1, outcome, clock=0, late=False))
    for part in (part_1, part_2):
        world.run(replay(world.store, epoch, 2, part, clock=0, late=True))
    assert acked not in world.run(world.rows())


def test_a_repeat_waits_while_the_first_copy_may_be_on_no_disk(world: World) -> None:
    """Redis has the first; its broker died before its log had it, and lives again. The flush settles it."""
    some, ids = enqueues(world, 1, 3)
    shard = world.brokers[1].shard
    world.run(world.brokers[1].batch(keyed(world.brokers[1], some, "k", whole=True), [], logged=False, repeated=False))
    shard.next_sequence()
    applied, _, _ = world.run(world.cache.join(world.lead.epoch, 1, None))
    world.run(world.cache.join(world.lead.epoch, 1, shard.sequence, applied))
    shard.previous = shard.sequence
    for node in NODES:
        again, _ = enqueues(world, node, 3)
        applied = world.run(world.brokers[node].batch(keyed(world.brokers[node], again, "k", whole=True), [], logged=True, repeated=False))
        assert {letter for letter, _ in applied.verdicts} == {b"p"}
    world.run(world.work([TOPIC]))
    again, _ = enqueues(world, 2, 3)
    applied = world.run(world.brokers[2].batch(keyed(world.brokers[2], again, "k", whole=True), [], logged=True, repeated=False))
    assert {letter for letter, _ in applied.verdicts} == {b"r"}
    assert list(world.run(world.rows())) == ids


def test_a_broker_whose_log_was_full_says_which_numbers_are_doubtful(world: World) -> None:
    some, _ = enqueues(world, 1)
    first = world.brokers[1].shard.sequence
    world.run(world.brokers[1].batch(keyed(world.brokers[1], some, "k", whole=False), [], logged=False, repeated=False))
    again, _ = enqueues(world, 1)
    shard = world.brokers[1].shard
    made = [e._replace(group=0) for e in keyed(world.brokers[1], again, "k", whole=False)]
    applied = world.run(world.cache.apply(shard.epoch, 1, shard.previous, shard.sequence, made, [], first))
    assert [letter for letter, _ in applied.verdicts] == [b"p"]


def test_brokers_that_start_together_get_numbers_of_their_own(world: World) -> None:
    async def register() -> list[Registered]:
        return await asyncio.gather(*(world.store.register_broker(uuid.uuid4(), None) for _ in range(6)))

    nodes = [registered.node for registered in world.run(register())]
    assert len(set(nodes)) == 6
    world.run(world.connection.execute("DELETE FROM broker WHERE node <> ALL(%s)", (list(NODES),)))


def test_rows_behind_many_that_redis_knows_are_pruned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis expires what it knows; the pruner passes it by, also when that takes more than one turn."""
    monkeypatch.setattr("mqueue.broker.daemons.pruner.PAGES_MAX", 1)
    monkeypatch.setattr("mqueue.broker.daemons.pruner.BATCH_MAX", 1)
    broker = world.brokers[1]
    broker.shard.next_sequence()
    made = [message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=SECOND + n, max_retries=3)[0] for n in range(4)]
    world.run(broker.batch(made, [], logged=True, repeated=False))
    world.run(world.work([TOPIC]))
    last = made[-1].record[record.ID]
    world.run(world.cache._redis.hdel(keys.record(NUMBER), last))
    world.run(world.advance(5 * SECOND))
    world.run(world.tick())
    assert int.from_bytes(last) in world.run(world.rows())
    turns = [world.run(world.pruner.prune(world.lead)) for _ in range(5)]
    assert turns == [True, True, True, True, False]
    assert int.from_bytes(last) not in world.run(world.rows())
    assert len(world.run(world.rows())) == 3


def test_keys_are_pruned_faster_than_a_page_a_turn(world: World) -> None:
    world.run(
        world.connection.execute(
            "INSERT INTO idempotency SELECT int4send(n), '', n, 5 FROM generate_series(1, 3500) n",
        )
    )
    world.run(world.tick())
    assert world.run(world.pruner.prune(world.lead)) is False
    assert world.run(world.store.find_keys([(3).to_bytes(4)], 0)) == []


# A message of which PostgreSQL has nothing may end though no log tells of it: its time is over, or a lease ends that
# was its last. If Redis is lost then, the ledger counts it all the same.


async def flush_until(world: World, newest: int) -> None:
    async for _ in world.flush(newest, False, False):
        pass


def open_topic(world: World) -> None:
    serve(world)
    world.run(world.work([TOPIC]))
    fetch(world)


def expire(world: World, id: int) -> None:
    world.run(world.advance(2 * SECOND))
    assert world.run(world.cache.fetch(world.lead.epoch, 1, [TOPIC], 1, 1000, False)).status == "more"


def cancel_and_let_go(world: World, id: int) -> None:
    got = world.run(world.cache.fetch(world.lead.epoch, 1, [TOPIC], 1, 1000, False))
    assert len(got.records) == 1
    broker = world.brokers[2]
    broker.shard.next_sequence()
    asked = SettleArgs(id.to_bytes(8), TOPIC.encode(), "cancel", b"", b"", b"")
    assert world.run(broker.batch([], [asked], logged=True, repeated=False)).outcomes[0].verdict == b"r"
    world.run(world.advance(120 * SECOND))
    world.run(world.tick())


@pytest.mark.parametrize(("how", "end", "ttl"), [("expired", expire, 1), ("cancelled", cancel_and_let_go, 0)])
def test_what_ends_untold_is_counted_by_the_flush_of_its_enqueue(world: World, how: str, end: object, ttl: int) -> None:
    """That flush comes before the one that would tell of the end, which never comes."""
    open_topic(world)
    [id] = put(world, ttl=ttl)
    enqueued_at = world.run(world.clock())
    assert callable(end)
    end(world, id)
    world.run(flush_until(world, enqueued_at))
    world.run(world.check_used())
    assert world.run(world.store.position(1)) == world.brokers[1].shard.sequence
    world.run(world.lose_redis(True, NODES))
    ledger = world.run(world.ledger())
    assert (ledger["enqueued"], ledger[how]) == (1, 1), ledger


def test_it_is_counted_once_where_redis_is_there(world: World) -> None:
    open_topic(world)
    [id] = put(world, ttl=1)
    enqueued_at = world.run(world.clock())
    expire(world, id)
    world.run(flush_until(world, enqueued_at))
    world.run(flush_until(world, 0))
    ledger = world.run(world.ledger())
    assert (ledger["enqueued"], ledger["expired"]) == (1, 1), ledger
    world.run(world.check_used())
    assert not world.run(world.left_in_redis())
