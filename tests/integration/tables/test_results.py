"""Results in PostgreSQL: which of two stands, how many go in one statement, when they go, who is woken."""

import asyncio
from typing import Any

import pytest
from stores import World

from mqueue.broker.daemons.lead import Lead
from mqueue.broker.daemons.pruner import Pruner
from mqueue.broker.engine import result_writer
from mqueue.broker.engine.result_waiters import LOOK_S, WAITERS_MAX, ResultWaiters
from mqueue.broker.engine.result_writer import WAITING_MAX, ResultWriter
from mqueue.broker.engine.results import look_every
from mqueue.broker.faults import StoreLost
from mqueue.broker.store.shard import ShardStore
from mqueue.errors import Unavailable
from mqueue.message import BODY_MAX, Result, TopicName
from tests.waiting import until


def receipt(number: int, epoch: int = 1) -> bytes:
    return epoch.to_bytes(4) + number.to_bytes(8)


def result(id: int, value: bytes = b"1", *, number: int = 1, ttl: float = 60.0, topic: str = "t") -> Result:
    return Result(id, "n", topic, receipt(number), value, ttl)


async def values(store: ShardStore, id: int, topic: str = "t") -> list[bytes | None]:
    kept = await store.result_of(id, TopicName("n", topic), None, values=True)
    return [] if kept is None else [kept[-1]]


async def test_the_result_of_the_later_delivery_stands(store: ShardStore) -> None:
    await store.keep_results([result(1, b"second", number=2)])
    await store.keep_results([result(1, b"first", number=1)])
    assert await values(store, 1) == [b"second"]
    await store.keep_results([result(1, b"again", number=2)])
    assert await values(store, 1) == [b"second"]
    await store.keep_results([result(1, b"third", number=300)])
    assert await values(store, 1) == [b"third"]
    await store.keep_results([result(1, b"other", topic="u")])  # who makes up an id of another topic changes nothing there
    assert (await values(store, 1), await values(store, 1, "u")) == ([b"third"], [b"other"])
    assert await values(store, 2) == [] and await store.ended([1, 2]) == {1}


async def test_what_waits_goes_in_one_statement(store: ShardStore) -> None:
    sent: list[list[Result]] = []
    keep = store.keep_results

    async def counted(results: Any) -> None:
        sent.append(list(results))
        await keep(results)

    store.keep_results = counted  # type: ignore[method-assign]
    writer = ResultWriter(store)
    await asyncio.gather(*(writer.keep([result(n), result(n + 1, b"2", number=n + 5)]) for n in range(100)))
    assert len(sent) <= 3 and sum(map(len, sent)) <= 104
    assert await values(store, 50) == [b"2"]
    sent.clear()
    await asyncio.gather(*(writer.keep([result(1000 + n, bytes(1 << 20))]) for n in range(20)))
    assert 3 <= len(sent) <= 5 and max(sum(len(r.value) for r in batch) for batch in sent) <= BODY_MAX


async def test_a_result_that_postgres_does_not_take_is_nobodys_success(store: ShardStore) -> None:
    writer = ResultWriter(store)
    async with store.transaction() as connection:
        await connection.execute("ALTER TABLE result RENAME TO hidden")
    try:
        told = await asyncio.gather(*(writer.keep([result(n)]) for n in range(3)), return_exceptions=True)
        assert all(isinstance(error, StoreLost) for error in told)
    finally:
        async with store.transaction() as connection:
            await connection.execute("ALTER TABLE hidden RENAME TO result")
    await writer.keep([result(1)])
    assert await values(store, 1) == [b"1"]


async def test_what_waits_for_postgres_is_bounded(store: ShardStore) -> None:
    writer = ResultWriter(store)
    value = bytes(WAITING_MAX // 2)
    gate = asyncio.Event()
    store.keep_results = lambda results: gate.wait()  # type: ignore[assignment, method-assign]
    keeping = [asyncio.create_task(writer.keep([result(n, value)])) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many results"):
        await writer.keep([result(9, value)])
    gate.set()
    told = await asyncio.gather(*keeping, return_exceptions=True)
    assert sum(error is None for error in told) == 2


async def test_a_waiter_is_woken_for_what_another_broker_keeps(store: ShardStore) -> None:
    waiters = ResultWaiters()
    waiting = [waiters.add(id, [store]) for id in (1, 2, 2)]
    await store.keep_results([result(2)])
    async with asyncio.timeout(10):
        await asyncio.gather(*(waiter.event.wait() for waiter in waiting[1:]))
    assert not waiting[0].event.is_set()
    waiters.wake(0, [1])
    assert waiting[0].event.is_set()
    for waiter in waiting:
        waiters.remove(waiter)
    await until(lambda: not waiters._looking, "nobody looks any more", LOOK_S + 10)
    assert waiters.count == 0


def test_results_expire_and_are_pruned(world: World) -> None:
    world.run(world.fresh())

    async def story() -> tuple[Any, int]:
        store, lead = world.store, world.lead
        await store.keep_results([*(result(n, ttl=1e-6) for n in range(2500)), result(5000)])
        seen = (await values(store, 7), await values(store, 5000), await store.ended([7, 5000]))
        assert not await Pruner()._results(Lead(lead.shard, lead.store, lead.term, lead.epoch))
        [(left,)] = await (await world.connection.execute("SELECT count(*) FROM result")).fetchall()
        await world.connection.execute("DELETE FROM result")
        return seen, left

    assert world.run(story()) == (([], [b"1"], {5000}), 1)


async def test_results_under_an_id_that_somebody_made_up_hide_none(store: ShardStore) -> None:
    await store.keep_results([Result(9, "a", f"t{n}", receipt(1), b"forged", 60.0) for n in range(200)])
    await store.keep_results([result(9, b"true")])
    assert await values(store, 9) == [b"true"]
    for name, namespaces, found in ((None, ["n"], "n"), (None, ["a"], "a"), (TopicName("n", "t"), ["a"], None), (None, [], None)):
        kept = await store.result_of(9, name, namespaces, values=False)
        assert (None if kept is None else kept[0]) == found


def test_very_many_waiters_look_seldom() -> None:
    assert (look_every(1), look_every(WAITERS_MAX)) == (2.0, WAITERS_MAX / 250)


async def test_a_postgres_that_does_nothing_holds_no_ack_up(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_writer, "FLUSH_WAIT_S", 0.05)
    frozen, keep = asyncio.Event(), store.keep_results

    async def slow(results: Any) -> None:
        await frozen.wait()
        await keep(results)

    store.keep_results = slow  # type: ignore[method-assign]
    writer = ResultWriter(store)
    for id in (1, 2):
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable):
                await writer.keep([result(id)])
    frozen.set()
    monkeypatch.setattr(result_writer, "FLUSH_WAIT_S", 20.0)
    await writer.keep([result(3)])
    assert [await values(store, id) for id in (1, 2, 3)] == [[b"1"]] * 3
