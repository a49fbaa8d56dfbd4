"""Wall clocks that are an hour wrong, or jump by hours: of a broker, of Redis' host, of PostgreSQL, of a worker. The
true time judges.

Of Redis' host a jump counts, for 5 s at most; of PostgreSQL's while Redis is away, for 0.25 s; nothing of the others'.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, NamedTuple

import pytest

from tests.processes.api import Http
from tests.processes.broker import Broker
from tests.processes.stores import Stores
from tests.processes.wrong_clock import FOUND, HOUR_S, SEEN_S, WrongClock, leaving_nothing, of_stores
from tests.waiting import anything, wait_until

pytestmark = pytest.mark.skipif(not FOUND, reason="libfaketime is missing")

EARLY_S = 0.1  # the clock of a shard and ours may be so far apart
LATE_S = 15.0  # a lease may be held for 5 s after a time without Redis, and the machine may be busy
REDIS_S = 5.0  # of its jump counts at most
COLD_S = 0.25  # of a jump of PostgreSQL, between two ticks of a cold shard's clock
MODE_S = 30.0  # within which a shard is cold, or hot again
LASTING_S = 120.0  # a TTL that no test outlives


class Due(NamedTuple):
    """By our monotonic clock: when something was asked, and was answered, each with its delay."""

    least: float
    most: float


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    with leaving_nothing():
        yield


@pytest.fixture
def clock(data_dir: Path, request: pytest.FixtureRequest) -> WrongClock:
    """A parameter: how far it is ahead from the beginning."""
    return WrongClock(data_dir, getattr(request, "param", 0))


@pytest.fixture
def stores(data_dir: Path, request: pytest.FixtureRequest, clock: WrongClock) -> Iterator[Stores]:
    """The parameter: which of them has the wrong clock."""
    with of_stores({request.param: clock}):
        stores = Stores(data_dir)
    yield stores
    stores.close()


@pytest.fixture(scope="module")
def good_stores() -> Iterator[tuple[Stores, Iterator[str]]]:
    """Stores whose clocks are right, and a database for each test that uses them."""
    with TemporaryDirectory(prefix="mq-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL's own account must get in
        stores = Stores(Path(folder), shards=4)
        yield stores, iter(stores.urls.database_urls)
        stores.close()


@pytest.fixture
def settings(good_stores: tuple[Stores, Iterator[str]]) -> dict[str, str]:
    """Of brokers, on stores that know nothing yet."""
    stores, databases = good_stores
    stores.flush_redis()
    return stores.environment(DATABASE_URLS=next(databases))


def put_later(http: Http, delay: float, *, at: bool = False, **options: Any) -> tuple[int, Due]:
    """`at`: as a point of time."""
    before = time.monotonic()
    when = {"deliver_after": datetime.fromtimestamp(time.time() + delay, UTC).isoformat()} if at else {"delay": delay}
    [id] = http.put(b"later", **when, **options)
    return id, Due(before + delay, time.monotonic() + delay)


def leased(owner: Http, other: Http, seconds: float) -> dict[int, Due]:
    """Two messages that nobody acks, and when they come again: the second one's lease is made longer by another
    broker.
    """
    ids = owner.put(b"short", b"long", priority=-1)
    before = time.monotonic()
    got = patient(lambda: owner.get(limit=2, lease=seconds))
    assert [m["id"] for m in got] == ids
    short = Due(before + seconds, time.monotonic() + seconds)
    before = time.monotonic()
    assert patient(lambda: other.good(other.settle("/extend", got[1], lease=seconds + 0.5)))["status"] == "ok"
    return {ids[0]: short, ids[1]: Due(before + seconds + 0.5, time.monotonic() + seconds + 0.5)}


def judge(due: dict[int, Due], brokers: Sequence[Http], early: float = EARLY_S) -> None:
    """All of these come from these brokers, none of them early or late, and nothing else does."""
    left = dict(due)

    def take() -> dict[int, Due]:
        for http in brokers:
            for message in patient(http.get):
                came = time.monotonic()
                one = left.pop(message["id"])
                assert one.least - early <= came <= one.most + LATE_S, f"{came - one.least:.2f} s after it was due"
                assert patient(lambda m=message: http.good(http.ack(m)))["status"] == "ok"
        return left

    last = max(one.most for one in due.values()) + LATE_S
    wait_until(take, "all that is due has come", last - time.monotonic(), enough=lambda left: not left)


def patient(call: Callable[[], Any]) -> Any:
    """Calls again where the shard just does not serve: a 503."""
    return wait_until(call, "the shard serves", MODE_S, enough=anything, despite=AssertionError)


def ahead_s(http: Http) -> float:
    """Of the true time, as the broker shows it."""
    date = http.call("GET", "/health").headers["date"]
    return parsedate_to_datetime(date).timestamp() - time.time()


def jump(clock: WrongClock, ahead: float, shown: Callable[[], float]) -> None:
    clock.jump_to(ahead)
    wait_until(lambda: abs(shown() - ahead) < HOUR_S / 2, "the clock has jumped", SEEN_S)


def drain(https: Sequence[Http]) -> list[int]:
    return [m["id"] for http in https for m in patient(lambda h=http: h.get(limit=1000))]


@pytest.mark.parametrize("hours", [1, -1], ids=["the leader ahead", "the leader behind"])
def test_of_two_brokers_one_is_an_hour_ahead_and_one_behind(settings: dict[str, str], tmp_path: Path, hours: int) -> None:
    wrong = [WrongClock(tmp_path, ahead * HOUR_S) for ahead in (hours, -hours)]
    with ExitStack() as stack:
        pair = []
        for one in wrong:
            pair.append(stack.enter_context(Broker(env=settings | one.env)))
            wait_until(lambda: pair[0].metric("mqueue_leader") == 1, "the first leads")
        on = {topic: [Http(b.url, b.token, topic=topic) for b in pair] for topic in ("later", "leases", "lasting", "short")}
        for http, one in zip(on["later"], wrong, strict=True):
            assert abs(ahead_s(http) - one.ahead_s) < 60
        made = [[*http.put(*[b"x"] * 20, ttl=LASTING_S)] for http in on["lasting"]]
        for http in on["short"]:
            http.put(b"x", ttl=1.0)
        due = dict(put_later(http, 1.5, at=at) for http in on["later"] for at in (True, False))
        for a, b in (on["leases"], on["leases"][::-1]):
            due |= leased(a, b, 1.0)
        judge(due, on["later"] + on["leases"])
        for ids, http in zip(made, on["lasting"], strict=True):
            for _ in range(5):
                ids += http.put(*[b"x"] * 5, ttl=LASTING_S)
            assert ids == sorted(set(ids))
        assert sorted(drain(on["lasting"])) == sorted(made[0] + made[1])
        assert drain(on["short"]) == []


class Load:
    """A producer and a worker, until told to stop. A call that a killed broker did not answer may have happened: it
    counts for nothing.
    """

    LEASE_S = 3.0

    def __init__(self, broker: Broker) -> None:
        self.sent: list[int] = []
        self.due: dict[int, Due] = {}
        self.came: dict[int, list[float]] = {}
        self._broker = broker
        self._stop = Event()

    def produce(self) -> None:
        while not self._stop.wait(0.02):
            try:
                http = self._http()
                self.sent += http.put(b"x", b"y")
                id, due = put_later(http, 0.5)
            except (OSError, HTTPException):
                continue
            self.sent.append(id)
            self.due[id] = due

    def work(self) -> None:
        while not self._stop.wait(0.01):
            try:
                http = self._http()
                for message in http.get(limit=50, lease=self.LEASE_S):
                    self.came.setdefault(message["id"], []).append(time.monotonic())
                    assert http.ack(message).body["status"] in ("ok", "gone")
            except (OSError, HTTPException):
                continue

    def stop(self) -> None:
        self._stop.set()

    def _http(self) -> Http:
        return Http(self._broker.url, self._broker.token)


def test_a_brokers_clock_jumps_under_load_and_over_a_kill(settings: dict[str, str], clock: WrongClock) -> None:
    with Broker(env=settings | clock.env) as broker, ThreadPoolExecutor(2) as pool:
        load = Load(broker)
        running = [pool.submit(load.produce), pool.submit(load.work)]

        def goes_on() -> None:
            sent, came = len(load.sent) + 10, len(load.came) + 10
            wait_until(lambda: (len(load.sent) > sent and len(load.came) > came) or any(one.done() for one in running), "it goes on", LATE_S)

        try:
            goes_on()
            for ahead in (HOUR_S, -HOUR_S):
                jump(clock, ahead, lambda: ahead_s(Http(broker.url, broker.token)))
                goes_on()
            broker.kill()
            broker.start()
            goes_on()
            assert ahead_s(Http(broker.url, broker.token)) < -HOUR_S / 2
            count = len(load.sent)
            wait_until(lambda: load.came.keys() >= set(load.sent[:count]), "all have come", Load.LEASE_S + LATE_S)
        finally:
            load.stop()
            for one in running:
                one.result(30)
        assert load.sent == sorted(set(load.sent)), "ids grow, over the kill too"
        early = [due.least - load.came[id][0] for id, due in load.due.items() if id in load.came]
        assert max(early) < EARLY_S
        for first, *again in load.came.values():
            assert all(later - first > Load.LEASE_S - EARLY_S for later in again)


@pytest.mark.parametrize("stores", ["valkey-server"], indirect=True)
def test_the_clock_of_redis_jumps(stores: Stores, clock: WrongClock) -> None:
    with Broker(env=stores.environment()) as broker:
        later, leases, lasting = (Http(broker.url, broker.token, topic=topic) for topic in ("later", "leases", "lasting"))

        def shown() -> float:
            return broker.metric("mqueue_clock_ahead_seconds")

        def goes_on() -> None:
            judge(dict([put_later(later, 1.0)]) | leased(leases, leases, 1.0), [later, leases])

        ids = lasting.put(*[b"x"] * 50, ttl=LASTING_S)
        [held] = lasting.get(limit=1, lease=60)
        kept, _ = put_later(lasting, 60.0)
        due = dict([put_later(later, REDIS_S + 2.0)]) | leased(leases, leases, REDIS_S + 2.0)
        assert abs(shown()) < 1
        jump(clock, HOUR_S, shown)
        assert "the clock of Redis has jumped" in broker.last_words()
        judge(due, [later, leases], early=REDIS_S + EARLY_S)
        goes_on()
        jump(clock, 0, shown)
        assert -REDIS_S - 1 < shown() < 0, "what counted of the jump stays"
        goes_on()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(later.get, wait=20)
            wait_until(lambda: broker.metric("mqueue_waiting_fetches") == 1, "it waits")
            [id] = later.put(b"now")
            assert [m["id"] for m in waiting.result(LATE_S)] == [id]
        wait_until(lambda: stores.rows() > len(ids), "what it took is flushed", 2 * LATE_S)
        assert lasting.ack(held).body["status"] == "ok", "its lease has lasted"
        assert [m["id"] for m in lasting.get(limit=100)] == [id for id in ids if id != held["id"]]
        assert lasting.status(kept).body["state"] == "delayed"


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
@pytest.mark.parametrize("clock", [HOUR_S], indirect=True)
def test_the_clock_of_postgresql_is_wrong_and_jumps_with_redis_and_without(stores: Stores, clock: WrongClock) -> None:
    def shown() -> float:
        [(now,)] = stores.sql("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(now) - time.time()

    assert shown() > HOUR_S / 2
    with ExitStack() as stack:
        pair = [stack.enter_context(Broker(env=stores.environment())) for _ in range(2)]
        later, leases, lasting = ([Http(b.url, b.token, topic=topic) for b in pair] for topic in ("later", "leases", "lasting"))
        ids = lasting[0].put(*[b"x"] * 20, ttl=LASTING_S)

        def serves(cold: bool) -> bool:
            return all(b.metric("mqueue_cold") == cold and b.metric("mqueue_shard_health") == 1 for b in pair)

        def goes_on(more: dict[int, Due] | None = None, early: float = EARLY_S) -> None:
            ids.extend(patient(lambda: lasting[0].put(b"x", ttl=LASTING_S)))
            due = dict(patient(lambda h=http, t=at: put_later(h, 1.0, at=t)) for http in later for at in (True, False))
            judge(due | leased(leases[0], leases[1], 0.7) | (more or {}), later + leases, early)

        jump(clock, -HOUR_S, shown)
        goes_on()
        waits = dict([put_later(later[0], 7.0)])
        time.sleep(3.0)  # nobody flushes, and the clock of the last flush grows old: time itself is the condition
        with stores.without("valkey"):
            wait_until(lambda: serves(cold=True), "cold", MODE_S)
            goes_on(waits)
            jump(clock, HOUR_S, shown)
            goes_on(early=EARLY_S + COLD_S)
        wait_until(lambda: serves(cold=False), "hot again", MODE_S)
        goes_on(early=EARLY_S + COLD_S)
        assert sorted(drain(lasting)) == sorted(ids)


TASKS = """
import asyncio
import os
from pathlib import Path

from mqueue import current, task


def note(text: str) -> None:
    with Path(os.environ["OUT"]).open("a") as file:
        file.write(text + "\\n")


async def long(name: str) -> None:
    note(f"{name} begins {current().attempt}")
    await asyncio.sleep(2.0)  # longer than its lease
    note(f"{name} ends")


ahead = task(topic="ahead", name="ahead", lease=1.0)(long)
behind = task(topic="behind", name="behind", lease=1.0)(long)
"""
CALLS = "import clock_tasks as t, sys; t.ahead.enqueue(f'{sys.argv[1]} ahead'), t.behind.enqueue(f'{sys.argv[1]} behind')"


def test_workers_whose_clocks_are_wrong(settings: dict[str, str], tmp_path: Path) -> None:
    """A job outlasts its lease, and runs once; of a worker that is killed it comes again when the lease has ended."""
    out = tmp_path / "out"
    (tmp_path / "clock_tasks.py").write_text(TASKS)
    with Broker(env=settings) as broker, ExitStack() as stack:
        env = {"MQUEUE_URL": broker.url, "MQUEUE_TOKEN": broker.token, "OUT": str(out), "PYTHONPATH": str(tmp_path)}

        def worker(*options: str, **more: str) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "mqueue.cli", "worker", "clock_tasks", *options]
            process = subprocess.Popen(command, cwd=tmp_path, env=broker.environment(env | more), stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def enqueue(name: str) -> None:
            subprocess.run([sys.executable, "-c", CALLS, name], cwd=tmp_path, env=broker.environment(env), check=True, timeout=60)

        def lines() -> list[str]:
            return sorted(out.read_text().splitlines()) if out.exists() else []

        def both(name: str, *words: str) -> list[str]:
            return sorted(f"{name} {who} {word}" for who in ("ahead", "behind") for word in words)

        wrong = [worker("--topic", who, **WrongClock(tmp_path, ahead).env) for who, ahead in (("ahead", HOUR_S), ("behind", -HOUR_S))]
        enqueue("whole")
        wait_until(lambda: lines() == both("whole", "begins 1", "ends"), "they run once", 30)
        out.unlink()
        enqueue("cut")
        wait_until(lambda: lines() == both("cut", "begins 1"), "they run", 10)
        time.sleep(1.0)  # their leases have been renewed: time itself is the condition
        for one in wrong:
            one.kill()
        worker()
        wait_until(lambda: lines() == both("cut", "begins 1", "begins 2", "ends"), "they run again", 3 * LATE_S)
