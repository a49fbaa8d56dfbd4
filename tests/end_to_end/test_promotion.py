"""PostgreSQL fails over under load: the primary dies, its replica is promoted, and the brokers follow by themselves.

The replica was synchronous, so PostgreSQL itself lost nothing; what Redis holds belongs to the timeline that ended: the epoch closes.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from pathlib import Path

import pytest

from mqueue import tokens
from mqueue.clock import SystemClock
from mqueue.torture.history import Fault
from mqueue.torture.judge import judge
from mqueue.torture.load import Load
from mqueue.torture.run import details
from mqueue.torture.scene import new_history, under_load

from .api import Http
from .broker import Broker, until
from .replicated import Replicated
from .stores import SECRET, environment

CALM_S = 2.0
AWAY_S = 4.0  # longer than a silent broker counts as alive
FOLLOWS_S = 15.0
SETTINGS = {"MQUEUE_READY_MAX": "100", "MQUEUE_LEASE_S": "2", "MQUEUE_LOG_LEVEL": "info"}


@pytest.fixture
async def stores(data_dir: Path) -> AsyncIterator[Replicated]:
    async with Replicated(data_dir) as stores:
        yield stores


async def test_the_brokers_follow_to_the_promoted_replica(stores: Replicated) -> None:
    with ExitStack() as stack:
        await fail_over(stores, [stack.enter_context(Broker(env=environment(stores.urls) | SETTINGS)) for _ in range(2)])


async def fail_over(stores: Replicated, brokers: list[Broker]) -> None:
    token = tokens.issue(SECRET, subject="test", now=SystemClock().wall_us() / 1e6, ttl=3600)
    history = new_history()
    async with aclosing(Load(history, [b.url for b in brokers], token, seed=1)) as load, under_load(stores, load):
        await asyncio.sleep(CALM_S)
        epochs = [broker.metric("mqueue_epoch") for broker in brokers]
        start, acked = time.monotonic(), load.acked
        stores.primary.kill()
        await asyncio.sleep(AWAY_S)
        print("acked while away", load.acked - acked)
        began = time.monotonic()
        await stores.promote()
        promoted = time.monotonic()
        print("promote took", promoted - began)
        await asyncio.to_thread(until, lambda: all(_follows(b, e) for b, e in zip(brokers, epochs, strict=True)), 60, "they follow")
        print("followed after", time.monotonic() - promoted)
        history.faults.append(Fault("promotion", start, time.monotonic(), True, frozenset()))
        await asyncio.sleep(CALM_S)
        print(load.produced, load.acked)
    verdict = judge(history)
    for b in brokers:
        print(b.log.read_text()[-6000:])
    print(verdict.bad(), verdict.judged)
    assert verdict.good(), "\n".join(details(verdict, history))


def _follows(broker: Broker, epoch: float) -> bool:
    ready = Http(broker.url, broker.token).call("GET", "/ready")
    return ready.status == 200 and ready.body["shards"][0]["mode"] == "hot" and broker.metric("mqueue_epoch") > epoch
