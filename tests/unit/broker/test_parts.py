"""A part of a broker that ends is not missed: what waits for it would wait for ever."""

import asyncio
from pathlib import Path

import pytest

from mqueue.broker.app import Broker
from mqueue.broker.config import Settings


@pytest.fixture
async def broker(tmp_path: Path) -> Broker:
    return Broker(Settings(data_dir=tmp_path), lambda: None)


async def cancelled() -> None:
    """As by a future of a library that another task was waiting for, too."""
    raise asyncio.CancelledError


async def broken() -> None:
    raise ValueError("broken")


async def test_a_part_that_nobody_cancelled_ends_the_broker(broker: Broker) -> None:
    broker._spawn(cancelled(), "committer-0")
    async with asyncio.timeout(5):
        assert str(await broker.failed) == "committer-0 was cancelled"


async def test_a_part_that_fails_ends_the_broker(broker: Broker) -> None:
    broker._spawn(broken(), "committer-0")
    async with asyncio.timeout(5):
        assert str(await broker.failed) == "broken"


async def test_parts_end_with_the_broker(broker: Broker) -> None:
    broker._spawn(asyncio.Event().wait(), "committer-0")
    await broker.stop()
    assert not broker.failed.done()
