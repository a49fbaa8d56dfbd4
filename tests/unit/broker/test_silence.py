"""How long a broker has been silent does not depend on PostgreSQL's clock, which may jump."""

from types import SimpleNamespace
from typing import Any, cast

from mqueue.broker.cache.calls import Limits
from mqueue.broker.daemons.epoch import Epochs
from mqueue.broker.store.seats import BrokerRow


class World:
    """One other broker, last heard of at `seen_at`; `postgres`: that clock, `monotonic`: the observer's."""

    def __init__(self) -> None:
        self.seen_at = self.postgres = 1000.0
        self.monotonic = 50.0
        clock = SimpleNamespace(monotonic=lambda: self.monotonic)
        self._lead: Any = SimpleNamespace(shard=SimpleNamespace(store=self, clock=clock, node=1))
        self._epochs = Epochs(cast(Any, None), Limits(1, 1, 1, 1, 2))

    async def brokers(self) -> list[BrokerRow]:
        return [BrokerRow(2, 0, 0, 0, self.postgres - self.seen_at, True, self.seen_at)]

    def later(self, seconds: float) -> None:
        self.monotonic += seconds
        self.postgres += seconds

    async def silent_s(self) -> float:
        [other] = await self._epochs._others(self._lead)
        return other.silent_s


async def test_a_jump_of_postgresql_neither_wakes_the_dead_nor_buries_the_living() -> None:
    for jump in (3600.0, -3600.0):
        world = World()
        world.later(2.0)
        assert await world.silent_s() == 2.0
        world.postgres += jump
        world.later(5.0)
        assert await world.silent_s() == 7.0
        world.seen_at = world.postgres
        assert await world.silent_s() == 0.0


async def test_who_was_heard_of_in_the_future_has_been_silent_from_the_first_look_on() -> None:
    world = World()
    world.postgres -= 3600.0
    assert await world.silent_s() == 0.0
    world.later(70.0)
    assert await world.silent_s() == 70.0


async def test_who_said_goodbye_is_not_waited_for() -> None:
    world = World()
    assert await world.silent_s() == 0.0
    world.seen_at = 0.0
    assert await world.silent_s() == 1000.0
