"""What a batch leaves in the log when Redis does not take it."""

import asyncio
import uuid
from pathlib import Path
from typing import Any, cast

import pytest

from mqueue.broker.cache.calls import Clocks
from mqueue.broker.commit.batch import Draft
from mqueue.broker.commit.committer import Committer
from mqueue.broker.faults import CacheLost, EpochEnded, Fault
from mqueue.broker.format import tail
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import Shard
from mqueue.broker.wal import IdSource, ShardLog
from mqueue.clock import SystemClock
from mqueue.errors import Unavailable


class Refusing:
    """A cache whose calls end so, one after the other."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = list(faults)

    async def clocks(self, epoch: int) -> Clocks:
        return Clocks(1, 2, 3)

    async def apply(self, *args: Any, **options: Any) -> None:
        raise self._faults.pop(0)


class Floor:
    id_floor_ms = 0

    def reserve_ids(self, until_ms: int) -> None:
        self.id_floor_ms = until_ms


@pytest.mark.parametrize(
    ("faults", "kept"),
    [([EpochEnded(4)], 0), ([CacheLost("no answer"), EpochEnded(4)], 1)],
    ids=["refused at once: it cannot be there", "refused after a call without an answer: it may be there"],
)
async def test_what_an_ended_epoch_refused_is_not_replayed(tmp_path: Path, faults: list[Fault], kept: int) -> None:
    log = ShardLog.open(tmp_path, 0, uuid.uuid4())
    shard = Shard(0, 1, cast(Any, Refusing(*faults)), cast(Any, None), log, SystemClock(), Metrics().shard(0), 1 << 40, sequence=1 << 40)
    shard.epoch, shard.looked_at = 3, shard.clock.monotonic()
    shard.serving.set()
    committer = Committer(shard, IdSource(1, Floor(), SystemClock()), lambda error: pytest.fail(str(error)))
    running = asyncio.create_task(committer.run())
    with pytest.raises(Unavailable, match="recovering"):
        await committer.enqueue([Draft(b"n/t", 0, bytes(12), None, 0, 0, 3, 1000)])
    running.cancel()
    assert len(tail.fold(log.records(0)).messages) == kept
    log.close()
