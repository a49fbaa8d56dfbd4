"""Who leads: the shards are spread over the brokers, and come back to one that returns; a broker whose wall clock is
wrong leads only where no other can.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.processes.wrong_clock import FOUND, HOUR_S, WrongClock, leaving_nothing
from tests.waiting import wait_until

SHARDS, BROKERS = 4, 3
MOVES_S = 120.0  # within which all have moved: each after it has been another's turn for 10 s
MOVES_MAX = 4  # of one shard, until it is where it belongs: the first to start leads all


@pytest.fixture
def stores(data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Stores]:
    """The parameter: how many shards."""
    stores = Stores(data_dir, shards=request.param)
    yield stores
    stores.close()


def led(brokers: list[Broker]) -> list[int]:
    return sorted(int(b.metric("mqueue_leader")) for b in brokers)


def terms(stores: Stores) -> list[int]:
    found = []
    for url in stores.urls.database_urls:
        with psycopg.connect(url) as connection:
            found += [term for (term,) in connection.execute("SELECT term FROM shard")]
    return found


@pytest.mark.parametrize("stores", [SHARDS], indirect=True)
def test_leaders_are_spread_and_come_back(stores: Stores) -> None:
    with ExitStack() as stack:
        brokers = [stack.enter_context(Broker(env=stores.environment())) for _ in range(BROKERS)]
        spread = [1, 1, 2]
        wait_until(lambda: led(brokers) == spread, "spread", MOVES_S)
        before = terms(stores)
        assert max(before) <= MOVES_MAX, "each shard moved once, or not at all"
        http = Http(brokers[0].url, brokers[0].token)
        ids = [id for n in range(8) for id in Http(http.url, http.token, topic=f"topic-{n}").put(b"x")]
        assert brokers[2].stop() == 0
        wait_until(lambda: sum(led(brokers[:2])) == SHARDS, "the others lead all", MOVES_S)
        brokers[2].start()
        wait_until(lambda: led(brokers) == spread, "spread again", MOVES_S)
        assert max(now - was for now, was in zip(terms(stores), before, strict=True)) <= MOVES_MAX
        found = [m["id"] for n in range(8) for m in Http(http.url, http.token, topic=f"topic-{n}").get()]
        assert sorted(found) == sorted(ids)


@pytest.mark.skipif(not FOUND, reason="libfaketime is missing")
@pytest.mark.parametrize("stores", [1], indirect=True)
@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_a_leader_whose_clock_is_wrong_says_so_and_gives_way(stores: Stores, tmp_path: Path, hours: int) -> None:
    wrong = WrongClock(tmp_path, hours * HOUR_S)
    with leaving_nothing(), ExitStack() as stack:
        alone = stack.enter_context(Broker(env=stores.environment() | wrong.env))
        wait_until(lambda: abs(alone.metric("mqueue_clock_off_seconds") - wrong.ahead_s) < HOUR_S / 60, "the metric tells")
        wait_until(lambda: alone.metric("mqueue_leader") == 1, "it leads, as nobody else can")
        http = Http(alone.url, alone.token)
        asked = http.call("PUT", "/schedules/each", {"topic": "work", "every": 1, "payload": "eA==", "catch_up": "all"})
        assert asked.status == 200, asked
        assert len(http.get(limit=100, wait=10)) == 1, "its first tick, and no other with it"
        other = stack.enter_context(Broker(env=stores.environment()))
        wait_until(lambda: [b.metric("mqueue_leader") for b in (alone, other)] == [0, 1], "the other leads", MOVES_S)
        before = http.get(limit=100)
        wait_until(lambda: http.get(limit=100), "the schedule goes on", enough=bool)
        assert len(before) < MOVES_S * 2
        told = alone.log.read_text().count("the wall clock is not that of PostgreSQL")
        assert told == 1, "once, not each time it looks"
