"""A pooled connection that the server has ended while it was idle is replaced at checkout: nobody is told."""

import psycopg

from mqueue.broker.embedded import StoreUrls
from mqueue.broker.store.shard import ShardStore
from tests.waiting import until

COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mqueue %' AND pid <> pg_backend_pid()"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'mqueue %' AND pid <> pg_backend_pid()"


async def test_the_first_call_after_the_servers_end_of_idle_sessions_is_answered(stores: StoreUrls, store: ShardStore) -> None:
    calls = (store.brokers, store.ledger, lambda: store.drop_workers([]), lambda: store.result_of(1, None, None, values=False))
    async with await psycopg.AsyncConnection.connect(stores.database_urls[0], autocommit=True) as admin:
        for call in calls:
            await call()

            async def ended() -> bool:
                await admin.execute(END)  # the pool may have one more on its way
                return (await (await admin.execute(COUNT)).fetchall())[0][0] == 0

            await until(ended, "idle sessions have ended")
            await call()
    assert not store.circuit.is_open


async def test_a_limit_of_idle_sessions_does_not_end_those_of_a_broker(store: ShardStore) -> None:
    async with store.transaction() as connection:
        [(limit,)] = await (await connection.execute("SHOW idle_session_timeout")).fetchall()
    assert limit == "0", "the session that holds the leader's lock may be idle, too"
