"""One shard's tables, migrated; what these tests leave in them is deleted."""

from collections.abc import AsyncIterator

import pytest

from mqueue.broker.embedded import StoreUrls
from mqueue.broker.store.migrate import migrate
from mqueue.broker.store.shard import ShardStore


@pytest.fixture
async def store(stores: StoreUrls) -> AsyncIterator[ShardStore]:
    migrate(stores.database_urls[0])
    store = ShardStore(0, stores.database_urls[0])
    await store.open()
    yield store
    async with store.transaction() as connection:
        await connection.execute("DELETE FROM result")
        await connection.execute("DELETE FROM worker")
    await store.close()
