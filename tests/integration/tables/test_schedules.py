"""Schedules as they are edited, in two shards' databases: what code declares, what people change, and both at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import psycopg
import pytest

from mqueue import schedule as s
from mqueue.broker.embedded import StoreUrls
from mqueue.broker.engine import schedules as use_case
from mqueue.broker.engine.schedules import Schedules
from mqueue.broker.faults import StoreLost
from mqueue.broker.slots import SLOTS, SlotMap
from mqueue.broker.store.migrate import migrate
from mqueue.broker.store.schedules import Editing
from mqueue.broker.store.shard import ShardStore
from mqueue.clock import SystemClock
from mqueue.errors import Invalid, NotFound, Unavailable
from mqueue.message import Accepted, NewMessage, TopicName

T = TypeVar("T")
HOUR = 3_600 * s.SECOND_US
BEGIN_US = 1_711_836_000 * s.SECOND_US  # 2024-03-30T22:00Z


class Place:
    """Two brokers' use cases over the same two shards; `sent`: what was enqueued by hand."""

    def __init__(self, urls: StoreUrls) -> None:
        self._runner = asyncio.Runner()
        self.urls = urls.database_urls
        self.stores = [ShardStore(n, url) for n, url in enumerate(self.urls)]
        slots = SlotMap([n % 2 for n in range(SLOTS)])
        self.now_us = BEGIN_US
        self.shard_us = 0  # the shard clock, as a broker knows it
        self.sent: list[NewMessage] = []
        shards: Any = [SimpleNamespace(store=store, now_us=lambda: self.shard_us) for store in self.stores]
        self.one, self.other = (Schedules(shards, slots, self, self._enqueue) for _ in range(2))
        names = [f"t{n}" for n in range(50)]
        self.topics = [next(name for name in names if slots.shard(TopicName("n", name)) == shard) for shard in (0, 1)]
        for store, url in zip(self.stores, self.urls, strict=True):
            migrate(url)
            self.run(store.open())
            self.run(store.create(2))

    wall_us = lambda self: self.now_us  # noqa: E731
    monotonic = SystemClock().monotonic

    async def _enqueue(self, messages: Any, key: Any = None) -> Accepted:
        self.sent += messages
        return Accepted([7], "wal")

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(what)

    def rows(self) -> list[tuple[int, str]]:
        """Shard and name."""
        found = []
        for shard, url in enumerate(self.urls):
            with psycopg.connect(url) as connection:
                found += [(shard, name) for (name,) in connection.execute("SELECT name FROM schedule ORDER BY name")]
        return found

    def close(self) -> None:
        for store, url in zip(self.stores, self.urls, strict=True):
            self.run(store.close())
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("DELETE FROM schedule")
                connection.execute("DELETE FROM shard")
        self._runner.close()

    def wanted(self, name: str = "a", topic: int = 0, cron: str | None = "0 4 * * *", every_s: int = 0, **more: Any) -> s.Schedule:
        made = s.Schedule(
            "n", name, self.topics[topic], None if every_s else cron, "Europe/Berlin", every_s * s.SECOND_US, 0, "one", b"{}", None, 0, None,
            None, None, False, None, None, None,
        )  # fmt: skip
        return made._replace(**more)

    def put(self, wanted: s.Schedule, *, declares: bool = False) -> s.Schedule:
        return self.run(self.one.put(wanted, declares=declares))


@pytest.fixture
def place(stores: StoreUrls) -> Iterator[Place]:
    place = Place(stores)
    yield place
    place.close()


def test_one_put_where_the_wall_clock_is_behind_begins_now(place: Place) -> None:
    """Else all ticks of that hour would come at once."""
    place.shard_us, place.now_us = BEGIN_US, BEGIN_US - HOUR
    put = place.put(place.wanted(cron=None, every_s=240), declares=False)
    assert put.next_at_us is not None
    assert put.next_at_us > BEGIN_US


def test_an_edit_stays_until_the_code_says_something_new(place: Place) -> None:
    code = place.wanted()
    made = place.put(code, declares=True)
    assert made.next_at_us == s.next_after(made.spec, BEGIN_US)
    edited = place.put(place.wanted(cron="30 5 * * *", priority=3))
    assert (edited.cron, edited.priority, edited.declared) == ("30 5 * * *", 3, made.declared)
    assert place.put(code, declares=True) == edited, "a deploy that declares the same"
    again = place.put(code._replace(cron="0 6 * * *"), declares=True)
    assert (again.cron, again.priority) == ("0 6 * * *", 0)
    assert place.run(place.one.find("n", "a")) == again


def test_a_paused_one_stays_so_and_goes_on_from_now(place: Place) -> None:
    place.put(place.wanted(every_s=60), declares=True)
    paused = place.run(place.one.pause("n", "a"))
    place.now_us += 10 * HOUR + s.SECOND_US
    assert place.put(place.wanted(every_s=60, priority=2), declares=True) == paused._replace(
        priority=2, declared=use_case.declaration(place.wanted(every_s=60, priority=2))
    )
    resumed = place.run(place.other.resume("n", "a"))
    assert not resumed.paused
    assert (resumed.anchor_us, resumed.next_at_us) == (BEGIN_US, BEGIN_US + 10 * HOUR + 60 * s.SECOND_US)
    assert place.run(place.one.resume("n", "a")) == resumed, "one that runs is not moved"


def test_one_that_may_not_move_to_another_shard_stays_where_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_case, "SCHEDULES_MAX", 2)
    for name in ("a", "b"):
        place.put(place.wanted(name, topic=0))
    place.put(place.wanted("c", topic=1))
    with pytest.raises(Invalid):
        place.put(place.wanted("c", topic=0))
    assert place.rows() == [(0, "a"), (0, "b"), (1, "c")]


def test_a_move_that_fails_half_way_leaves_it_paused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put(place.wanted("c", topic=1))
    place.run(place.one.pause("n", "c"))

    async def fail(*_: object) -> None:
        raise StoreLost("away")

    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(Editing, "change", fail)
        place.put(place.wanted("c", topic=0))
    assert place.rows() == [(1, "c")]
    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(Editing, "delete", fail)
        place.put(place.wanted("c", topic=0))
    assert place.rows() == [(1, "c")]
    assert place.put(place.wanted("c", topic=0)).paused
    assert place.rows() == [(0, "c")]


def test_two_that_move_it_at_once_do_not_wait_for_each_other_for_ever(place: Place) -> None:
    here, there = place.wanted("c", topic=0), place.wanted("c", topic=1)

    async def both() -> None:
        for _ in range(20):
            await asyncio.gather(place.one.put(here, declares=False), place.other.put(there, declares=False))

    place.run(asyncio.wait_for(both(), 20))
    assert {name for _, name in place.rows()} == {"c"}


def test_another_time_begins_now_and_anything_else_leaves_the_next_tick(place: Place) -> None:
    made = place.put(place.wanted(every_s=3_600))
    place.now_us += HOUR // 2
    kept = place.put(place.wanted(every_s=3_600, catch_up="all", priority=1))
    assert (kept.anchor_us, kept.next_at_us) == (made.anchor_us, made.next_at_us)
    moved = place.put(place.wanted(every_s=60))
    assert (moved.anchor_us, moved.next_at_us) == (place.now_us, place.now_us + 60 * s.SECOND_US)


def test_another_topic_takes_it_to_another_shard(place: Place) -> None:
    made = place.put(place.wanted(topic=0), declares=True)
    place.run(place.one.pause("n", "a"))
    assert place.rows() == [(0, "a")]
    moved = place.put(place.wanted(topic=1))
    assert place.rows() == [(1, "a")]
    assert (moved.paused, moved.declared, moved.next_at_us) == (True, made.declared, made.next_at_us)
    assert place.put(place.wanted(topic=0), declares=True) == moved, "the edit stays"
    assert place.rows() == [(1, "a")]
    assert place.run(place.one.delete("n", "a")) is True
    assert place.run(place.one.delete("n", "a")) is False
    assert place.rows() == []


def test_a_list_is_by_name_over_all_shards(place: Place) -> None:
    for n in range(7):
        place.put(place.wanted(f"s{n}", topic=n % 2))
    place.put(place.wanted("z")._replace(namespace="other"))
    pages = [place.run(place.one.page("n", after, 3)) for after in ("", "s2", "s5", "s6")]
    assert [[each.name for each in page] for page in pages] == [["s0", "s1", "s2"], ["s3", "s4", "s5"], ["s6"], []]
    assert {each.payload for page in pages for each in page} == {b""}


def test_two_workers_that_start_together_declare_once(place: Place) -> None:
    code = place.wanted(every_s=60)

    async def together() -> list[s.Schedule]:
        return await asyncio.gather(*(broker.put(code, declares=True) for broker in (place.one, place.other) * 4))

    told = place.run(together())
    assert place.rows() == [(0, "a")]
    assert len(set(told)) == 1


def test_a_run_now_is_an_ordinary_message(place: Place) -> None:
    place.put(place.wanted(payload=b"call", metadata='{"a": 1}', priority=4, max_retries=2, lease_ms=5_000, ttl_us=60 * s.SECOND_US))
    assert place.run(place.one.run("n", "a", None)) == 7
    expected = NewMessage(
        "n", place.topics[0], b"call", 4, b'{"schedule": "a", "a": 1}', ttl=60.0, max_retries=2, lease=5.0
    )  # fmt: skip
    assert place.sent == [expected]


@pytest.mark.parametrize("what", ["find", "pause", "resume"])
def test_what_is_not_there_is_said_so(place: Place, what: str) -> None:
    ask: Callable[[str, str], Coroutine[Any, Any, s.Schedule]] = getattr(place.one, what)
    with pytest.raises(NotFound):
        place.run(ask("n", "nowhere"))
    with pytest.raises(NotFound):
        place.run(place.one.run("n", "nowhere", None))


def test_a_namespace_may_have_so_many(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_case, "SCHEDULES_MAX", 2)
    place.put(place.wanted("a"))
    place.put(place.wanted("b"))
    with pytest.raises(Invalid, match="2 schedules"):
        place.put(place.wanted("c"))
    assert place.put(place.wanted("b", priority=9)).priority == 9
    with pytest.raises(Invalid, match="never"):
        place.put(place.wanted("b", cron="0 0 */30 2 MON#5"))
    assert place.run(place.one.find("n", "b")).priority == 9


def test_a_clock_that_is_ahead_of_postgres_does_not_decide_when_it_begins(place: Place) -> None:
    place.now_us = SystemClock().wall_us() + 1_000 * 24 * HOUR
    made = place.put(place.wanted())
    assert made.next_at_us is not None
    assert made.next_at_us < SystemClock().wall_us() + 25 * HOUR


def test_a_shard_that_is_away_is_told(place: Place) -> None:
    place.run(place.stores[1].close())
    with pytest.raises(Unavailable):
        place.run(place.one.page("n", "", 10))


def test_a_zone_that_this_broker_does_not_know_is_said(place: Place) -> None:
    known = place.wanted()._replace(timezone="Mars/Olympus", next_at_us=BEGIN_US)
    assert use_case.resumed(known, BEGIN_US) == known, "it runs"
    with pytest.raises(Unavailable, match="Mars/Olympus"):
        use_case.resumed(known._replace(paused=True), BEGIN_US)
