"""The short form of `outage.py`; and leases that end meanwhile."""

import time
from pathlib import Path

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.torture.stage import Stage
from tests.campaigns.judging.rates import rate
from tests.campaigns.outage import CALLS, report, run
from tests.processes.stores import SECRET


async def test_what_is_buffered_goes_on_without_postgresql() -> None:
    found = await run(seconds=3.0, calm_s=2.0, pace=500.0, ways=("stopped",))
    [outage] = found.outages
    assert all(rate(found.history.answers, call, outage.start, outage.end) > 50 for call in CALLS), "\n".join(report(found))
    assert outage.drained_s is not None
    assert outage.drained_s < 30
    assert found.verdict.good(), "\n".join(report(found))


async def test_a_lease_ends_although_nobody_can_lead(data_dir: Path) -> None:
    async with (
        Stage(data_dir, 1, 1, SECRET, {}) as stage,
        AsyncClient(stage.brokers[0].url, stage.token, retries=False, timeout=10.0) as client,
    ):
        assert await client.fetch(["work"]) == []  # the topic is open: PostgreSQL has nothing of it
        [id] = await client.enqueue_many([wire.EnqueueItem(topic="work", payload=b"1")])
        async with stage.without_postgres():
            [first] = await client.fetch(["work"], limit=1, lease=1.0)
            began = time.monotonic()
            [again] = await client.fetch(["work"], limit=1, wait=9.0)
            assert (first.id, again.id, again.attempt) == (id, id, 2)
            assert 0.9 <= time.monotonic() - began < 8.0
            assert {v.status for v in await client.ack([first])} == {"stale"}
            assert {v.status for v in await client.ack([again])} == {"ok"}
