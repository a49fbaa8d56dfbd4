"""What a batch leaves in the log when Redis does not take it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mqueue.broker.cache.calls import Applied, Clocks
from mqueue.broker.commit.batch import Draft
from mqueue.broker.commit.committer import Committer
from mqueue.broker.faults import CacheLost, CacheRefused, EpochEnded, Fault, Refusal
from mqueue.broker.format import record, tail
from mqueue.broker.metrics import Metrics
from mqueue.broker.shard import Shard
from mqueue.broker.wal import IdSource, ShardLog
from mqueue.clock import SystemClock
from mqueue.errors import Unavailable
from tests.waiting import until


class Refusing:
    """A cache whose calls end so, one after the other."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = list(faults)

    async def clocks(self, epoch: int, wall_us: int) -> Clocks:
        return Clocks(1, 2, 3)

    async def apply(self, *args: Any, **options: Any) -> None:
        raise self._faults.pop(0)


class Always:
    """A cache whose calls end so, until it answers."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.made: list[tuple[Any, ...]] = []
        self.answers = False

    @property
    def calls(self) -> int:
        return len(self.made)

    async def clocks(self, epoch: int, wall_us: int) -> Clocks:
        return Clocks(1, 2, 3)

    async def apply(self, *args: Any, **options: Any) -> Applied:
        self.made.append(args)
        if not self.answers:
            raise self._fault
        return Applied(1, 1, 1, 0, [(b"o", e.record[record.ID]) for e in args[4]], [])


class Floor:
    id_floor_ms = 0

    def reserve_ids(self, until_ms: int) -> None:
        self.id_floor_ms = until_ms


DRAFT = Draft(b"n/t", 0, bytes(12), None, 0, 0, 3, 1000)
READ_ONLY = CacheRefused(Refusal.READ_ONLY, "no writes")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ShardLog]:
    log = ShardLog.open(tmp_path, 0, uuid.uuid4())
    yield log
    log.close()


@asynccontextmanager
async def committing(log: ShardLog, cache: Any, refusal: Refusal | None = None) -> AsyncIterator[Committer]:
    shard = Shard(0, 1, cache, cast(Any, None), log, SystemClock(), Metrics().shard(0), 1 << 40, sequence=1 << 40)
    shard.epoch, shard.looked_at, shard.refusal = 3, shard.clock.monotonic(), refusal
    shard.serving.set()
    committer = Committer(shard, IdSource(1, Floor(), SystemClock()), lambda error: pytest.fail(str(error)))
    running = asyncio.create_task(committer.run())
    yield committer
    running.cancel()


@pytest.mark.parametrize(
    ("faults", "kept"),
    [([EpochEnded(4)], 0), ([CacheLost("no answer"), EpochEnded(4)], 1), ([READ_ONLY, EpochEnded(4)], 0)],
    ids=["refused at once: it cannot be there", "refused after a call without an answer: it may be there", "refused twice: it cannot be there"],
)
async def test_what_an_ended_epoch_refused_is_not_replayed(log: ShardLog, faults: list[Fault], kept: int) -> None:
    async with committing(log, Refusing(*faults)) as committer:
        with pytest.raises(Unavailable, match="recovering"):
            await committer.enqueue([DRAFT])
    assert len(tail.fold(log.records(0)).messages) == kept


@pytest.mark.parametrize("known", [None, Refusal.READ_ONLY], ids=["until the deadline", "at once where that is known"])
async def test_what_redis_refuses_has_not_happened(log: ShardLog, monkeypatch: pytest.MonkeyPatch, known: Refusal | None) -> None:
    if known is None:
        monkeypatch.setattr("mqueue.broker.commit.committer.REPEAT_S", 0.2)
    cache = Always(READ_ONLY)
    async with committing(log, cache, known) as committer:
        with pytest.raises(Unavailable, match="read-only"):
            await committer.enqueue([DRAFT])
    assert (cache.calls > 1) == (known is None)
    assert not tail.fold(log.records(0)).messages


async def test_nobody_waits_for_a_batch_without_an_answer_for_ever(log: ShardLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqueue.broker.commit.committer.REPEAT_S", 0.2)
    cache = Always(CacheLost("no answer"))
    async with committing(log, cache) as committer:
        first = asyncio.create_task(committer.enqueue([DRAFT]))
        await until(lambda: cache.calls, "the first is on its way")
        behind = asyncio.create_task(committer.enqueue([DRAFT]))
        for waiting in (first, behind):
            with pytest.raises(Unavailable, match="unknown whether"):
                await waiting
        cache.answers = True
        [id] = await committer.enqueue([DRAFT])
    assert len({call[2:4] for call in cache.made}) == 2, "what is unknown keeps its number until it is answered"
    kept = tail.fold(log.records(0)).messages
    assert id in kept and len(kept) == 2
