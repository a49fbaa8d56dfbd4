"""A few seeds of the simulation, and that it notices what it is for. The long form: python -m tests.simulation."""

import os
from collections.abc import Iterator

import pytest

from .mutations import MUTATIONS, Mutation
from .stage import Servers, Stage

SEEDS = int(os.environ.get("MQUEUE_SIMULATION_SEEDS", "8"))
QUICK = ("acknowledge before the fsync", "outcomes are not logged", "segments go before they are flushed")


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Stage() as servers:
        yield servers


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost(servers: Servers, seed: int) -> None:
    world = servers.world(seed)
    world.run()
    assert world.counts["jobs"] and world.counts["deliveries"] and world.checker.looks


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 7] if SEEDS <= 8 else range(SEEDS))  # those two notice a tick that is not one transaction
def test_each_tick_of_a_schedule_is_enqueued_once(servers: Servers, seed: int) -> None:
    world = servers.periodic(seed)
    world.run()
    assert world.counts["ticks"] > 20


@pytest.mark.slow
def test_apart_keeps_idempotency_keys(servers: Servers) -> None:
    """Keyed enqueues waited for their batch while Redis went out of reach; past it they were taken a second time."""
    servers.world(7, ("pause", "cut")).run()


@pytest.mark.slow
def test_what_an_ended_epoch_refused_does_not_come_beside_its_repeat(servers: Servers) -> None:
    """A broker that had slept through an epoch logged a request, was refused, and replayed it later: its client had
    been to another one.
    """
    servers.world(10, ("redis_forgets", "slow", "pause")).run()


def test_a_seed_tells_the_same_story_twice(servers: Servers) -> None:
    stories: list[list[str]] = []
    for _ in range(2):
        story: list[str] = []
        servers.world(1, ("kill", "redis_forgets"), story.append).run()
        stories.append(story)
    assert stories[0] == stories[1]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name in QUICK], ids=lambda m: m.name)
def test_a_rule_taken_away_is_noticed(servers: Servers, mutation: Mutation) -> None:
    seed, _ = servers.notices(mutation)
    assert seed is not None
