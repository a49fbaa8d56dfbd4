"""One shard on the shared stores, for the tests that drive it by hand."""

from collections.abc import Iterator

import pytest
from stores import World

from mqueue.broker.embedded import StoreUrls


@pytest.fixture(scope="module")
def world(stores: StoreUrls) -> Iterator[World]:
    world = World(stores)
    yield world
    world.close()
