"""PostgreSQL fails over under load: the primary dies, its replica is promoted, and the brokers follow by themselves.

What Redis holds belongs to the timeline that has ended, so the epoch closes, and the brokers' logs bring what the new
primary lacks: after synchronous replication what came during the outage; after asynchronous what the replica was behind
by too, if that is less than a minute.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from pathlib import Path

from mqueue import tokens
from mqueue.clock import SystemClock
from mqueue.torture.history import OK, Fault
from mqueue.torture.judge import judge
from mqueue.torture.load import RETRIES, Load
from mqueue.torture.run import details
from mqueue.torture.scene import new_history, under_load
from mqueue.wire import EnqueueItem
from tests.processes.api import Http
from tests.processes.broker import Broker, free_ports
from tests.processes.replicated import Replicated
from tests.processes.stores import SECRET, environment
from tests.waiting import wait_until

CALM_S = 1.5
PRODUCERS = 2
AWAY_S = 5.0  # long enough for tries to connect to become rare, if they did
FOLLOWS_S = 15.0  # after the promotion; 3 to 6 s here
SETTINGS = {"MQUEUE_READY_MAX": "1000", "MQUEUE_LEASE_S": "2", "MQUEUE_LOG_LEVEL": "info"}


async def test_the_brokers_follow_to_the_promoted_replica(data_dir: Path) -> None:
    async with Replicated(data_dir) as stores:
        await fail_over(stores, stores.lose_primary, AWAY_S)


async def test_what_the_replica_lacked_comes_from_the_logs(data_dir: Path) -> None:
    """And one of them late: its broker dies with the primary."""
    async with Replicated(data_dir, synchronous=False) as stores:
        await fail_over(stores, stores.primary.kill, 1.0, lags=True, kills=True)


async def fail_over(stores: Replicated, lose: Callable[[], None], away_s: float, *, lags: bool = False, kills: bool = False) -> None:
    """`lags`: the replica gets nothing of the load. `kills`: a broker too, `kill -9`; it is started after the
    promotion.
    """
    history = new_history()
    token = tokens.issue(SECRET, subject="test", now=SystemClock().wall_us() / 1e6, ttl=3600)
    with ExitStack() as stack:
        env = environment(stores.urls) | SETTINGS
        brokers = [stack.enter_context(Broker("--port", str(port), env=env)) for port in free_ports(2)]
        if lags:
            await stores.detach()
        load = Load(history, [broker.url for broker in brokers], token, seed=1)
        async with aclosing(load), under_load(stores, load, PRODUCERS):
            await asyncio.sleep(CALM_S)  # the load goes on
            epoch = max(broker.metric("mqueue_epoch") for broker in brokers)
            if lags:
                assert await rows(stores, "topic") == (4, 0)
            start, acked = time.monotonic(), load.acked
            lose()
            if kills:
                brokers[1].kill()
            await asyncio.sleep(away_s)  # the load goes on
            assert load.acked > acked, "the ready queue stood still meanwhile"
            # not a count of the producers': each may be waiting for what a killed broker had in flight
            assert await load.enqueue(0, [EnqueueItem(topic="alpha", payload=b"meanwhile", max_retries=RETRIES)]) == OK
            await stores.promote()
            if kills:
                await asyncio.to_thread(brokers[1].start)
            await asyncio.to_thread(wait_until, lambda: all(serves_after(epoch, b) for b in brokers), "all serve a later epoch", FOLLOWS_S)
            history.faults.append(Fault("promotion", start, time.monotonic(), True, frozenset({1} if kills else ())))
            await asyncio.sleep(CALM_S)  # the load goes on
        assert sum(broker.log.read_text().count("closing the epoch") for broker in brokers) >= 2, "at the first start, and now"
    verdict = judge(history)
    assert verdict.good(), "\n".join(details(verdict, history))


async def rows(stores: Replicated, table: str) -> tuple[int, ...]:
    """On the primary, and on the replica."""
    return tuple([(await server.sql(f"SELECT count(*) FROM {table}", "mqueue_0"))[0][0] for server in (stores.primary, stores.replica)])


def serves_after(epoch: float, broker: Broker) -> bool:
    """From Redis, in a later epoch."""
    ready = Http(broker.url, broker.token).call("GET", "/ready")
    return ready.status == 200 and ready.body["shards"][0]["mode"] == "hot" and broker.metric("mqueue_epoch") > epoch
