"""`mqueue wal retire` gives a node number back, once nothing of its log is needed any more, or once somebody says that
the log is lost.

The number's row stays in each database, without an owner: what is still numbered under it (the origin of a message, a
batch in Redis that no log has, a position) stays true, and whoever gets the number begins after it: later sequences
(`Identity.begin_after`), and ids above the old directory's floor, below which all its ids are, wherever the clocks
stand.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from mqueue.broker.cache.ready import ReadyCache
from mqueue.broker.embedded import StoreUrls
from mqueue.broker.faults import CacheLost, EpochEnded, Fault
from mqueue.broker.recovery.rescue import seat_of
from mqueue.broker.shard import ALONE_S, FLUSH_WAIT_S
from mqueue.broker.store.seats import Seat
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.wal import identity
from mqueue.broker.wal.identity import COUNTER_BITS, State
from mqueue.broker.wal.ids import EPOCH_MS
from mqueue.broker.wal.recovery import inspect
from mqueue.broker.wal.survey import shards
from mqueue.errors import MQueueError

FLUSH_LOOK_S = 0.1
CLOCKS_APART_MS = 3_600_000  # past the wall clock of a broker whose floor is lost with its directory


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


async def lost(node: int, urls: StoreUrls, *, acknowledged: bool) -> AsyncIterator[str]:
    """Frees the number of a broker whose directory is lost, if it is `acknowledged` that what only its log had is lost
    with it. Yields what is known of that, shard by shard, in any case.

    Raises MQueueError, and nothing is changed, where the broker was heard of within ALONE_S, the number is nobody's, a
    batch of it waits in Redis for its flush, or nobody acknowledged.
    """
    try:
        async with AsyncExitStack() as stack:
            seats: dict[ShardStore, Seat] = {}
            floor, owner, waits = 0, None, False
            for number, url in enumerate(urls.database_urls):
                store = ShardStore(number, url)
                await store.open()
                stack.push_async_callback(store.close)
                cache = ReadyCache(number, urls.redis_addrs[number % len(urls.redis_addrs)], urls.redis_password or None)
                stack.push_async_callback(cache.close)
                if (found := await store.owner(node)) is None or (seat := await store.seat(found[0])) is None:
                    yield f"shard {number}: node number {node} is nobody's"
                    continue
                if seat.silent_s < ALONE_S:
                    raise MQueueError(f"node {node} on {found[1]} was heard of {seat.silent_s:.1f} s ago: if it runs, stop it")
                if owner not in (None, found[0]):
                    raise MQueueError(f"shard {number}: node number {node} is that of another broker there: are these databases of one mqueue?")
                owner, seats[store], floor = found[0], seat, max(floor, found[2])
                applied, is_flushed = await _applied(cache, store, node, seat.position)
                waits = waits or not is_flushed
                yield f"shard {number}: PostgreSQL has its log up to sequence {seat.position}; {_last(seat, applied)}"
            if owner is None:
                raise MQueueError(f"node number {node} is nobody's: there is nothing to retire")
            if waits:
                raise MQueueError("its last batches are in Redis and not flushed yet: run this again in a moment")
            if not acknowledged:
                raise MQueueError(
                    "nothing was changed: --lost says that its directory is lost for good, and that you accept to lose what only its log had"
                )
            for store, seat in reversed(seats.items()):
                if not await store.retire_broker(owner, seat.position, max(0, floor - EPOCH_MS) + CLOCKS_APART_MS):
                    raise MQueueError(f"shard {store.number}: its row has changed meanwhile: look again")
    except Fault as fault:
        raise MQueueError(str(fault)) from fault


async def _applied(cache: ReadyCache, store: ShardStore, node: int, position: int) -> tuple[int | None, bool]:
    """Returns the last sequence of this broker that Redis has applied in this epoch (None: Redis cannot tell), and
    whether PostgreSQL has it. A number may be used, and no batch: then nothing is flushed up to it, so it is enough
    that all is flushed that waited in Redis just now. That takes FLUSH_WAIT_S at most.
    """
    row = await store.row()
    cache.run_id = row.run_id
    with suppress(CacheLost, EpochEnded):
        applied = (await cache.join(row.epoch, node, None))[0]
        if (applied or 0) <= position:
            return applied, True
        last = await cache.last_dirty()
        await cache.ask_flush()
        for _ in range(int(FLUSH_WAIT_S / FLUSH_LOOK_S)):
            if (await store.row()).dirty_number >= last:
                return applied, True
            await asyncio.sleep(FLUSH_LOOK_S)
        return applied, False
    return None, True


def _last(seat: Seat, applied: int | None) -> str:
    """Says what there may be beyond its position."""
    began = f"its last life began after {seat.started}"
    if applied is None:
        return f"{began}; Redis cannot tell how far it came: what it took since the last flush may be lost"
    if applied > seat.position:
        return f"{began}; Redis has its batches up to {applied}"
    return f"{began}; Redis knows no later batch of it. What was applied in an epoch that ended since, and not replayed, is lost"


def _check(store: ShardStore, seat: Seat, state: State, last: int) -> None:
    where = f"shard {store.number}"
    if seat.node != state.node:
        raise MQueueError(f"{where}: this broker is node {seat.node} there, but node {state.node} here")
    if seat.started >> COUNTER_BITS > state.start_count:
        raise MQueueError(f"{where}: the broker has started again since this copy of its directory was made: retire the later one")
    if seat.position < last:
        raise MQueueError(f"{where}: PostgreSQL has its log up to sequence {seat.position} of {last}: run mqueue wal replay first")
