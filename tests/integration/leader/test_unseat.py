"""A leader that hangs loses its lock; one that has just got it, and has not said so yet, keeps it."""

from stores import NODES, World

from mqueue.broker.store.leader.store import LeaderStore
from tests.waiting import until

SILENT_S = 0.5


async def unseated(world: World) -> None:
    former, other = NODES
    await world.connection.execute("UPDATE shard SET leader = %s", (former,))
    await world.connection.execute("UPDATE broker SET seen_at = now() - interval '1 minute' WHERE node = %s", (former,))
    next_leader, third = await LeaderStore.connect(world.store), await LeaderStore.connect(world.store)
    try:
        assert await next_leader.try_lock()
        assert not await third.unseat(other, SILENT_S), "it has only just taken the lock"
        assert not await third.unseat(former, SILENT_S), "nor is it a session that the former leader left"
        await until(lambda: third.unseat(other, SILENT_S), "silent for long, it loses the lock")
        await until(third.try_lock, "the lock is free")
    finally:
        await next_leader.close()
        await third.close()


def test_only_a_session_that_hangs_is_unseated(world: World) -> None:
    world.run(world.fresh())
    world.run(unseated(world))
