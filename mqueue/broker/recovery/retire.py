"""`mqueue wal retire` gives a node number back, once nothing of its log is needed any more.

The number's row stays in each database, without an owner: what is still numbered under it (the origin of a message, a
batch in Redis that no log has, a position) stays true, and whoever gets the number begins after it: later sequences
(`Identity.begin_after`), and ids above the old directory's floor, below which all its ids are, wherever the clocks
stand.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from mqueue.broker.faults import Fault
from mqueue.broker.recovery.rescue import seat_of
from mqueue.broker.shard import ALONE_S
from mqueue.broker.store.shard import Seat, ShardStore
from mqueue.broker.wal import identity
from mqueue.broker.wal.identity import COUNTER_BITS, State
from mqueue.broker.wal.recovery import inspect
from mqueue.broker.wal.survey import shards
from mqueue.errors import MQueueError


async def retire(directory: Path, state: State, database_urls: Sequence[str]) -> int:
    """Returns the number that is free now. The directory is held.

    Raises MQueueError, and nothing is changed, where something of the log is not flushed, the broker was heard of
    within ALONE_S, or the directory is an older copy; WalCorrupt, OSError.
    """
    if state.node is None:
        raise MQueueError(f"{directory} has no node number")
    last = {n: (await asyncio.to_thread(inspect, path, n, state.uuid)).last for n, path in shards(directory).items()}
    if last and max(last) >= len(database_urls):
        raise MQueueError(f"there is a log of shard {max(last)}, but {len(database_urls)} databases are given: give all of them, in order")
    try:
        async with AsyncExitStack() as stack:
            stores = [ShardStore(number, url) for number, url in enumerate(database_urls)]
            for store in stores:
                await store.open()
                stack.push_async_callback(store.close)
            # numbers are given out by shard 0: it forgets this one when all others have, those of a run that broke off
            # included
            seats = {store.number: await store.seat(state.uuid) for store in stores}
            held = [store for store in reversed(stores) if seats[store.number]] or stores[:1]
            for store in held:
                _check(store, await seat_of(store, state, ALONE_S), state, last.get(store.number, 0))
            for store in held:
                if not await store.retire_broker(state.uuid, last.get(store.number, 0), state.id_floor_ms):
                    raise MQueueError(f"shard {store.number}: its row has changed meanwhile: look again")
    except Fault as fault:
        raise MQueueError(str(fault)) from fault
    identity.retire(directory)
    return state.node


def _check(store: ShardStore, seat: Seat, state: State, last: int) -> None:
    where = f"shard {store.number}"
    if seat.node != state.node:
        raise MQueueError(f"{where}: this broker is node {seat.node} there, but node {state.node} here")
    if seat.started >> COUNTER_BITS > state.start_count:
        raise MQueueError(f"{where}: the broker has started again since this copy of its directory was made: retire the later one")
    if seat.position < last:
        raise MQueueError(f"{where}: PostgreSQL has its log up to sequence {seat.position} of {last}: run mqueue wal replay first")
