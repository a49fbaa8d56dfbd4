"""Cancel a message wherever it is: it is never delivered again, counted once, and no loss of Redis brings it back."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from by_hand import TOPIC, enqueue, fetch, flush, serve, settle
from stores import NODES, SECOND, World, message

from mqueue.broker.cache.calls import SettleArgs
from mqueue.broker.commit.committer import Committer
from mqueue.broker.engine import cancel_notices
from mqueue.broker.engine.cancel_notices import Cancellations
from mqueue.broker.engine.canceller import Canceller
from mqueue.broker.engine.views import Views
from mqueue.broker.format import record
from mqueue.broker.metrics import Metrics
from mqueue.broker.store.cold import ColdStore, failed
from mqueue.broker.store.leader.store import Opening
from mqueue.errors import Unavailable
from mqueue.message import TopicName


@pytest.fixture(autouse=True)
def fresh(world: World) -> None:
    world.run(world.fresh())
    serve(world)


class Batches:
    """In the committer's place: each settle is a batch of its own. `before`: called when the row has been read."""

    def __init__(self, world: World, node: int) -> None:
        self._broker = world.brokers[node]
        self.before: Callable[[], Any] | None = None

    async def settle(self, settles: Any, args: list[SettleArgs]) -> Any:
        if self.before is not None:
            before, self.before = self.before, None
            await before()
        self._broker.shard.next_sequence()
        return (await self._broker.batch([], args, logged=True, repeated=False)).outcomes


def cancel(world: World, id: int, node: int = 1, namespaces: Any = None, before: Any = None) -> str:
    shard = world.brokers[node].shard
    batches = Batches(world, node)
    batches.before = before
    told = Cancellations([shard], shard.clock)
    canceller = Canceller([shard], cast(Any, {shard.number: batches}), told, Metrics())
    return world.run(canceller.cancel(id, namespaces))


def lose_redis(world: World) -> None:
    world.run(world.lose_redis(True, list(NODES)))


def open_topic(world: World) -> None:
    """So that its frontier has risen: what comes is ready."""
    assert fetch(world) == []


def drain(world: World) -> list[int]:
    """All ids that still come, acked."""
    came = []
    world.run(world.advance(100 * SECOND))
    world.run(world.tick())
    world.run(world.work([TOPIC]))
    while got := fetch(world, 3):
        for r in got:
            assert settle(world, r, "ack").verdict == b"o"
            came.append(r.id)
    world.run(world.work([TOPIC]))
    assert world.run(world.rows()) == {}
    assert world.run(world.left_in_redis()) == {}
    return came


def counted(world: World, **ends: int) -> None:
    ledger = world.run(world.ledger())
    assert {name: n for name, n in ledger.items() if n} == {"enqueued": sum(ends.values()), **ends}


@pytest.mark.parametrize("flushed", [False, True], ids=["never flushed", "flushed"])
@pytest.mark.parametrize("lost", [False, True], ids=["", "and Redis is lost"])
@pytest.mark.parametrize("where", ["ready", "delayed", "spill"])
def test_what_waits_is_taken_away(world: World, where: str, flushed: bool, lost: bool) -> None:
    if where == "ready":
        open_topic(world)
    ids = enqueue(world, 2, delay=5 if where == "delayed" else 0)
    if flushed:
        flush(world)
    data, _, _ = world.run(world.cache.record(ids[0].to_bytes(8)))
    assert (flushed and where != "ready") or (data or b"")[:1] == {"ready": b"r", "delayed": b"d", "spill": b"s"}[where]
    assert cancel(world, ids[0]) == "cancelled"
    if lost:
        lose_redis(world)
        serve(world)
    assert cancel(world, ids[0]) == ("gone" if lost or not flushed else "cancelled")
    assert drain(world) == ids[1:]
    counted(world, acked=1, cancelled=1)


@pytest.mark.parametrize("lost", [False, True], ids=["", "and Redis is lost"])
def test_what_only_postgresql_has_is_taken_away_though_its_topic_was_never_opened(world: World, lost: bool) -> None:
    ids = enqueue(world, 3)
    flush(world)
    lose_redis(world)
    assert world.run(world.cache.record(ids[1].to_bytes(8)))[0] is None
    assert cancel(world, ids[1], node=2) == "cancelled"
    if lost:
        lose_redis(world)
    assert drain(world) == [ids[0], ids[2]]
    counted(world, acked=2, cancelled=1)


def test_what_arrived_and_is_not_placed_yet_is_taken_away(world: World) -> None:
    """A broker that was away has brought it; the leader places it after that."""
    open_topic(world)
    broker = world.brokers[2]
    broker.shard.next_sequence()
    made, r = message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=3)
    world.run(world.arrive_late(broker, made))
    assert cancel(world, r.id) == "cancelled"
    world.run(world.prefetcher.arrivals(world.lead))
    assert fetch(world) == drain(world) == []
    counted(world, cancelled=1)


def test_it_is_taken_away_between_a_refills_page_and_its_end(world: World) -> None:
    ids = enqueue(world, 3)
    flush(world)
    refill = world.refill([TOPIC], 3)
    for _ in range(2):
        world.run(anext(refill))  # type: ignore[arg-type]
    assert cancel(world, ids[0]) == "cancelled"
    assert world.run(anext(refill, None)) is None  # type: ignore[arg-type]
    assert [r.id for r in fetch(world, 3)] == ids[1:]


@pytest.mark.parametrize("next_epoch", [False, True], ids=["", "in the next epoch"])
def test_a_flush_between_look_and_script_makes_it_look_again(world: World, next_epoch: bool) -> None:
    """It was loaded, done and flushed away meanwhile: whoever cancels it must not hear that it still waited. Or that in
    the next epoch, whose flushes are counted anew.
    """
    [id] = enqueue(world)
    flush(world)
    for _ in range(8 if next_epoch else 0):
        enqueue(world)
        flush(world)

    async def done_meanwhile() -> None:
        if next_epoch:
            await world.lose_redis(True, list(NODES))
            serve(world)
        await world.work([TOPIC])
        got = await world.cache.fetch(world.lead.epoch, 1, [TOPIC], 1, 20_000, False)
        [r] = [record.unpack(data) for data in got.records]
        world.brokers[2].shard.next_sequence()
        ack = SettleArgs(r.id.to_bytes(8), TOPIC.encode(), "ack", r.receipt, b"", b"")
        await world.brokers[2].batch([], [ack], logged=True, repeated=False)
        await world.work([TOPIC])

    assert cancel(world, id, before=done_meanwhile) == "gone"
    others = drain(world)
    counted(world, acked=1 + len(others))


def test_what_is_pruned_between_look_and_flush_is_counted_once(world: World) -> None:
    [id] = enqueue(world, ttl=1)
    flush(world)
    world.run(world.advance(5 * SECOND))
    world.run(world.tick())

    async def pruned() -> None:
        await world.pruner.prune(world.lead)

    assert cancel(world, id, before=pruned) == "cancelled"
    assert drain(world) == []
    counted(world, expired=1)


@pytest.mark.parametrize("flushed", [False, True], ids=["never flushed", "flushed"])
@pytest.mark.parametrize("end", ["nack", "release", "release later", "bury", "cancel", "expiry"])
def test_what_runs_ends_with_its_delivery(world: World, end: str, flushed: bool) -> None:
    [id] = enqueue(world)
    if flushed:
        flush(world)
    [r] = fetch(world)
    assert cancel(world, id) == cancel(world, id, node=2) == "cancelling"
    if end == "expiry":
        world.run(world.advance(30 * SECOND))
        world.run(world.tick())
    else:
        outcome = settle(world, r, end.split()[0], b"" if end in ("release", "cancel") else bytes(8))
        assert (outcome.verdict, outcome.state) == (b"o", b"c")
        world.run(world.connection.execute("DELETE FROM cancel_request"))  # the log knows it, too
        lose_redis(world)
    assert drain(world) == []
    counted(world, cancelled=1)


def test_it_can_be_seen_that_what_runs_is_to_be_cancelled(world: World) -> None:
    """In Redis, and past it."""
    first, second = enqueue(world, 2)
    fetch(world, 2)
    cancel(world, first)
    shard = world.brokers[1].shard

    async def no_progress(id: int, name: TopicName) -> tuple[None, None]:
        return None, None

    def seen() -> list[bool]:
        told = [world.run(Views([shard], no_progress).message(id)) for id in (first, second)]
        return [status is not None and status.cancelling for status in told]

    assert seen() == [True, False]
    flush(world)
    shard.mode = "cold"
    assert seen() == [True, False]


def test_what_runs_and_is_acked_all_the_same_is_done(world: World) -> None:
    [id] = enqueue(world)
    [r] = fetch(world)
    assert cancel(world, id) == "cancelling"
    assert settle(world, r, "ack").state == b"a"
    assert cancel(world, id) == "gone"
    assert drain(world) == []
    counted(world, acked=1)


def test_what_ran_when_redis_was_lost_does_not_run_again(world: World) -> None:
    kept, id = enqueue(world, 2)
    fetch(world, 2)
    assert cancel(world, id) == "cancelling"
    lose_redis(world)
    assert drain(world) == [kept]
    counted(world, acked=1, cancelled=1)


def test_a_lease_that_outlives_its_epoch_is_still_its_last(world: World) -> None:
    [id] = enqueue(world)
    [r] = fetch(world, lease_s=3600)
    assert cancel(world, id) == "cancelling"
    flush(world)
    epoch, number = int.from_bytes(r.receipt[:4]), int.from_bytes(r.receipt[4:])
    world.run(world.leader.mirror_leases(world.lead.epoch, world.term, [(id, epoch, number, r.until)]))
    rows = world.run(Opening(world.session, (0, 0)).live_leases(0, 10))
    assert [record.unpack(data).flags for _, data, _ in rows] == [record.IN_PG | record.CANCELLING]


def test_what_has_ended_or_never_was_is_gone(world: World) -> None:
    acked, dead, other = enqueue(world, 3)
    for r, kind in zip(fetch(world, 2), ("ack", "bury"), strict=True):
        settle(world, r, kind, b"" if kind == "ack" else bytes(8))
    assert [cancel(world, id) for id in (acked, dead, 7)] == ["gone"] * 3
    flush(world)
    assert [cancel(world, id) for id in (acked, dead, 7)] == ["gone"] * 3
    assert cancel(world, other, namespaces={"another"}) == "gone"
    assert cancel(world, other, namespaces={"t"}) == "cancelled"


def test_where_redis_has_just_been_lost_nothing_is_said_to_be_gone(world: World) -> None:
    """A log still has it."""
    [id] = enqueue(world)
    world.run(world._wipe())
    with pytest.raises(Unavailable):
        cancel(world, id)


def test_one_that_this_batch_has_just_placed_is_taken_away(world: World) -> None:
    open_topic(world)
    enqueue(world)
    [r] = fetch(world)
    broker = world.brokers[1]
    broker.shard.next_sequence()
    name = TOPIC.encode()
    both = [SettleArgs(r.id.to_bytes(8), name, "release", r.receipt, b"", b""), SettleArgs(r.id.to_bytes(8), name, "cancel", b"", b"", b"")]
    outcomes = world.run(broker.batch([], both, logged=True, repeated=True)).outcomes
    assert [(o.verdict, o.state) for o in outcomes] == [(b"o", b"n"), (b"o", b"c")]
    assert drain(world) == []
    counted(world, cancelled=1)


# -- workers hear of it ------------------------------------------------------------------------------------------------


def test_whoever_waits_hears_of_it_and_goes_on_from_there(world: World) -> None:
    async def heard() -> None:
        shard = world.brokers[1].shard
        told = Cancellations([shard], shard.clock)
        await world.store.request_cancel(5, "t")
        since, ids = await told.wait(["t"], None, 10)
        assert ids == [5], "what was asked for before comes with the first call"
        waiting = asyncio.create_task(told.wait(["t", "u"], since, 10))
        other = asyncio.create_task(told.wait(["v"], since, 1.0))
        await asyncio.sleep(0)
        await world.store.request_cancel(6, "u")
        later, ids = await waiting
        assert ids == [6]
        assert await other == (later, []), "another namespace's is passed by"
        assert (await told.wait(["t", "u"], since, 0))[1] == [6]
        shard.epoch += 1
        try:
            assert (await told.wait(["t", "u"], later, 0))[1] == [5, 6], "another epoch: PostgreSQL may have been set back"
        finally:
            shard.epoch -= 1

    world.run(heard())


def test_requests_are_pruned_once_their_messages_are_gone(world: World) -> None:
    [id] = enqueue(world)
    flush(world)
    for each in (id, 5):
        world.run(world.store.request_cancel(each, "t"))
    assert world.run(world.leader.prunes.cancel_requests(60.0, 10)) == 0
    assert world.run(world.leader.prunes.cancel_requests(-1.0, 10)) == 1
    assert [id for _, id in world.run(world.store.cancel_requests(0, ["t"], 10))] == [id]


# -- past Redis --------------------------------------------------------------------------------------------------------


def go_cold(world: World) -> None:
    flush(world)
    lead = world.lead
    world.run(lead.store.open_cold(lead.epoch, lead.term, 1, 0))


def test_past_redis_what_waits_goes_and_what_runs_ends_with_its_lease(world: World) -> None:
    ids = enqueue(world, 5)
    go_cold(world)
    lead, cold, now = world.lead, ColdStore(world.store), world.brokers[1].shard.now_us()
    leased, _ = world.run(cold.fetch(lead.epoch, now, "t", ["a"], 4, 1000, 1 << 20))
    assert [record.unpack(data).id for data, _ in leased] == ids[:4]
    there = world.run(cold.cancel(lead.epoch, now, dict.fromkeys([*ids[1:], 7], TOPIC)))
    assert {id: bool(m.receipt) for id, m in there.items()} == {ids[1]: True, ids[2]: True, ids[3]: True, ids[4]: False}
    assert ids[4] not in world.run(world.rows())
    assert {id for _, id in world.run(world.store.cancel_requests(0, ["t"], 10))} == set(ids[1:4])

    def nack(there: Any, clocks: Any) -> Any:
        return [failed(m, clocks.now, "no") for m in there.values()]

    async def expire() -> None:
        await lead.store.cold.turn(lead.epoch, lead.term, lambda: now + 20 * SECOND, lambda: 0)

    world.run(cold.settle(lead.epoch, now, ids[:2], nack))
    assert set(world.run(world.rows())) == {ids[0], ids[2], ids[3]}
    world.run(expire())
    assert set(world.run(world.rows())) == {ids[0]}
    ledger = world.run(world.ledger())
    assert (ledger["enqueued"], ledger["cancelled"]) == (5, 4)


def test_past_redis_a_broker_answers_as_always(world: World) -> None:
    runs, waits = enqueue(world, 2)
    go_cold(world)
    shard = world.brokers[1].shard
    world.run(ColdStore(world.store).fetch(shard.epoch, shard.now_us(), "t", ["a"], 1, 60_000, 1 << 20))
    shard.mode = "cold"

    async def answers() -> list[str]:
        committer = Committer(shard, cast(Any, None), lambda error: None)
        running = asyncio.create_task(committer.run())
        canceller = Canceller([shard], cast(Any, {shard.number: committer}), Cancellations([shard], shard.clock), Metrics())
        try:
            return [await canceller.cancel(id, None) for id in (runs, waits, waits, runs, 7)]
        finally:
            running.cancel()

    assert world.run(answers()) == ["cancelling", "cancelled", "gone", "cancelling", "gone"]


def test_one_that_is_enqueued_between_look_and_script_stays_where_the_token_may_not_see_it(world: World) -> None:
    broker, id = world.brokers[1], next(world.ids)

    async def before() -> None:
        broker.shard.next_sequence()
        made, _ = message(broker, id, topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=3)
        await broker.batch([made], [], logged=True, repeated=False)

    assert cancel(world, id, namespaces=["shop"], before=before) == "gone"
    assert cancel(world, id, namespaces=["t"]) == "cancelled"


def test_past_redis_one_of_another_topic_than_was_seen_stays(world: World) -> None:
    [id] = enqueue(world)
    go_cold(world)
    lead, now = world.lead, world.brokers[1].shard.now_us()
    assert world.run(ColdStore(world.store).cancel(lead.epoch, now, {id: "/"})) == {} and id in world.run(world.rows())


def test_looks_of_many_who_wait_leave_others_their_connections(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel_notices, "WAITERS_MAX", 50)
    shard, reads, most = world.brokers[1].shard, [0], [0]
    real = world.store.cancel_requests

    async def counted(*args: Any) -> Any:
        reads[0] += 1
        most[0] = max(most[0], reads[0])
        try:
            return await real(*args)
        finally:
            reads[0] -= 1

    async def heard() -> None:
        told = Cancellations([shard], shard.clock)
        since, _ = await told.wait(["t"], None, 0)
        waiting = [asyncio.create_task(told.wait(["t"], since, 10)) for _ in range(50)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await told.wait(["t"], since, 10)
        await world.store.request_cancel(5, "t")
        assert [ids for _, ids in await asyncio.gather(*waiting)] == [[5]] * 50
        await told.wait(["t"], since, 0)

    monkeypatch.setattr(world.store, "cancel_requests", counted)
    world.run(heard())
    assert most[0] <= cancel_notices.READS_MAX


def test_whoever_never_waits_hears_of_it_too(world: World) -> None:
    async def heard() -> list[int]:
        shard = world.brokers[1].shard
        since, _ = await Cancellations([shard], shard.clock).wait(["t"], None, 0)
        await world.store.request_cancel(5, "t")
        return (await Cancellations([shard], shard.clock).wait(["t"], since, 0))[1]

    assert world.run(heard()) == [5]


def test_redis_may_be_lost_before_the_request_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    [id] = enqueue(world)
    fetch(world)
    flush(world)
    real = world.store.request_cancel

    async def late(*args: Any) -> None:
        monkeypatch.setattr(world.store, "request_cancel", real)
        await world.lose_redis(True, list(NODES))
        serve(world)
        await real(*args)

    monkeypatch.setattr(world.store, "request_cancel", late)
    assert cancel(world, id) == "cancelled"
    flush(world)
    assert fetch(world) == [] and world.run(world.rows()) == {}


def test_what_the_log_of_an_absent_broker_may_have_is_not_gone(world: World) -> None:
    """The epoch was opened without broker 2: nobody else knows what it has."""
    of_absent, of_present = 2 << 12 | 1 << 22, 1 << 12 | 1 << 22
    epoch = world.lead.epoch
    world.run(world.store.heartbeat(1, epoch, world.term, 0, world.time.wall_us()))
    world.run(world.connection.execute("UPDATE broker SET replayed = %s WHERE node = 2", (epoch - 1,)))
    assert cancel(world, of_present) == "gone"
    with pytest.raises(Unavailable, match="node 2"):
        cancel(world, of_absent)
    world.run(world.store.leave(2, flushed=True))
    assert cancel(world, of_absent) == "gone", "it left with an empty log"
    world.run(world.connection.execute("UPDATE broker SET replayed = 0 WHERE node = 2"))
    world.run(world.store.heartbeat(2, epoch, world.term, 0, world.time.wall_us()))
    assert cancel(world, of_absent) == "gone", "it has come back"


def test_what_comes_late_while_it_is_cancelled_is_not_gone(world: World) -> None:
    """The broker that took it came back between the look and the answer."""
    broker = world.brokers[2]
    broker.shard.next_sequence()
    made, r = message(broker, next(world.ids), topic=TOPIC, priority=0, delay_us=0, ttl_us=0, max_retries=3)
    assert cancel(world, r.id, before=lambda: world.arrive_late(broker, made)) == "cancelled"
