"""Topics that Redis does not know: opened in turns and many at once, and no obstacle to those it does know."""

import time
from pathlib import Path

import pytest

from mqueue import wire
from mqueue.client import AsyncClient
from mqueue.errors import Unavailable
from mqueue.torture.stage import Stage
from tests.processes.stores import SECRET


async def test_a_topic_that_needs_postgresql_does_not_stop_the_others_of_its_request(data_dir: Path) -> None:
    async with (
        Stage(data_dir, 1, 1, SECRET, {}) as stage,
        AsyncClient(stage.brokers[0].url, stage.token, retries=False, timeout=10.0) as client,
    ):
        assert await client.fetch(["a"]) == []  # it is open: PostgreSQL has nothing of it
        ids = await client.enqueue_many([wire.EnqueueItem(topic="a", payload=b"%d" % n) for n in range(5)])
        async with stage.without_postgres():
            first = await client.fetch(["new", "a"], limit=3)
            assert [m.id for m in first] == ids[:3]
            began = time.monotonic()
            rest = await client.fetch(["a", "new"], limit=10, wait=5.0)
            assert [m.id for m in rest] == ids[3:]
            assert time.monotonic() - began < 3.0
            with pytest.raises(Unavailable):  # "nothing" would be a guess: PostgreSQL may have something of the new one
                await client.fetch(["a", "new"], limit=10)
