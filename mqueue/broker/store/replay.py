"""A replay brings a log's tail into PostgreSQL, in one transaction: state goes by version, so any part of it may be
repeated.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from mqueue.broker.faults import EpochEnded, Overtaken
from mqueue.broker.format import record
from mqueue.broker.format.entries import Settled
from mqueue.broker.format.record import Record
from mqueue.broker.format.tail import Tail
from mqueue.broker.store import aside, write
from mqueue.broker.store.queries import fetch, sql
from mqueue.broker.store.rows import Key
from mqueue.broker.store.shard import ShardStore
from mqueue.broker.store.write import END_OF_STATE, Ledger

KINDS = {b"a": "ack", b"c": "cancel", b"x": "dead", b"n": "nack"}
ENDS = (b"a", b"c")
Row = tuple[Record, bytes | None, bytes]  # with its error and body
STATES = {kind: state for state, kind in KINDS.items()}


async def replay(store: ShardStore, epoch: int, node: int, tail: Tail, *, clock: int, late: bool, after: int | None = None) -> int:
    """Writes a tail. `late`: the epoch these records were written in has ended without them: their rows are announced
    as arrivals, and outcomes of other brokers' messages count no more. `after`: the position they follow. Raises
    StoreLost; and nothing is written: EpochEnded, where the epoch is another one, or is open and this was not to be
    late; Overtaken, where the position is another one. Returns how many rows PostgreSQL has refused: they
    are set aside.
    """
    ids = await store.topic_ids(tail.topics()) if tail.topics() else {}
    async with store.transaction() as connection:
        if not await (await connection.execute(sql("fence_replay"), {"epoch": epoch, "late": late})).fetchall():
            raise EpochEnded(None)
        if after is not None and {b.node: b.position for b in await store.brokers_in(connection)}.get(node) != after:
            raise Overtaken(f"the position of node {node} is no longer {after}")
        ledger, refused = Ledger(), 0
        set_aside = aside.Aside(connection, ids, ledger).row

        async def put(rows: Sequence[Row]) -> None:
            await write.write_again(connection, rows, ids, ledger)

        async def bury(rows: Sequence[Row]) -> None:
            await write.bury(connection, rows, ids, ledger, clock)

        await _drop_duplicates(connection, tail)
        await _take_orphans(connection, tail)
        await _take_back(connection, tail, ids, ledger, late=late)
        live = [(t.record, t.error, t.body) for t in tail.messages.values() if t.end is None]
        refused += await aside.by_parts(connection, live, put, set_aside)
        dead = [(t.record, t.error, t.body) for t in tail.messages.values() if t.end == b"x"]
        refused += await aside.by_parts(connection, dead, bury, set_aside)
        for state in ENDS:
            await _end(connection, [t.record for t in tail.messages.values() if t.end == state], END_OF_STATE[state], ids, ledger)
        # a mirrored lease that has ended would keep its message from the next epoch
        await connection.execute(sql("delete_leases"), {"ids": [id for id, t in tail.messages.items() if t.settled]})
        if late:
            await connection.execute(sql("put_arrivals"), {"ids": [r.id for r, _, _ in live]})
        else:
            refused += await _settle_others(store, connection, tail, ids, ledger, clock)
        await write.write_ledger(connection, ledger)
        if tail.last:
            await write.move_positions(connection, {node: tail.last})
        # the next epoch's clock begins past what was stamped in this one: the time scan does not look for what was due
        # when it came
        stamped = max((record.open_body(t.body).created_us for t in tail.messages.values()), default=0)
        await connection.execute(sql("move_shard"), {"number": 0, "clock": max(clock, stamped + 1)})
    return refused


async def _drop_duplicates(connection: AsyncConnection[Any], tail: Tail) -> None:
    """Drops messages that were refused, since another one had their key first; the void record may be lost."""
    keyed = [t for t in tail.messages.values() if t.key_hash]
    if not keyed:
        return
    args = {"key_hashes": [t.key_hash for t in keyed if t.key_is_kept], "now": 0}
    rows = await (await connection.execute(sql("find_keys"), args, binary=True)).fetchall()
    owners = {key_hash: (id, expires) for key_hash, _, id, expires in rows}
    kept: dict[bytes, Key] = {}
    requests: dict[bytes, list[int]] = defaultdict(list)
    for t in keyed:
        owner, expires = owners.get(t.key_hash, (t.owner, 0))
        if owner != t.owner and expires <= record.open_body(t.body).created_us:
            owner = t.owner  # the key's time was over, and it was used again
        owners[t.key_hash] = owner, max(expires, t.key_expires)
        if owner != t.owner:
            del tail.messages[t.record.id]
        elif t.key_is_kept:
            kept[t.key_hash] = Key(t.key_hash, t.body_hash, owner, t.key_expires)
        else:  # of a request: the first of its messages brought the key, the others come after it
            kept.setdefault(t.key_hash, Key(t.key_hash, t.body_hash, owner, t.key_expires))
            requests[t.key_hash].append(t.record.id)
    for key_hash, ids in requests.items():
        kept[key_hash] = kept[key_hash]._replace(runs=record.pack_runs(ids))
    if kept:
        await write.keep_keys(connection, list(kept.values()))


async def _take_orphans(connection: AsyncConnection[Any], tail: Tail) -> None:
    if not tail.messages:
        return
    rows = await (await connection.execute(sql("orphans_of"), {"ids": list(tail.messages)}, binary=True)).fetchall()
    for id, kind, version, attempts, due, error in rows:
        tail.messages[id].settle(STATES[kind], version, attempts, due, (error or "").encode())


async def _take_back(connection: AsyncConnection[Any], tail: Tail, topic_ids: dict[str, int], ledger: Ledger, *, late: bool) -> None:
    """What was set aside gives way to a later version or an end of it, and keeps an earlier one out."""
    known = await aside.refused_among(connection, [*tail.messages, *tail.others])
    if not known:
        return
    for id in known.keys() & tail.messages.keys():
        if tail.messages[id].record.version < known[id]:
            del tail.messages[id]
    await aside.take_back(connection, [(id, t.record.version) for id, t in tail.messages.items() if id in known], ledger)
    outcomes = [tail.others.pop(id) for id in known.keys() & tail.others.keys()]
    ended = {} if late else {o.id: o for o in outcomes if o.state in ENDS}
    for id in await aside.take_back(connection, [(o.id, o.version) for o in ended.values()], Ledger()):
        ledger.add(topic_ids[ended[id].topic.decode()], END_OF_STATE[ended[id].state])


async def _end(connection: AsyncConnection[Any], records: Sequence[Record], how: str, ids: dict[str, int], ledger: Ledger) -> None:
    if not records:
        return
    deleted = await write.delete_messages(connection, [(r.id, r.version) for r in records])
    for r in records:
        ledger.add(ids[r.topic], how)
        if r.id not in deleted:
            ledger.add(ids[r.topic], "enqueued")


class Others(NamedTuple):
    """Outcomes of messages that are not in this tail. `by_state`: of those that have an older row. `orphans`: their
    enqueue is still to come. `unseen`: began and ended without a row, and the flush that counts both never came.
    """

    by_state: dict[bytes, list[Settled]]
    orphans: list[Settled]
    unseen: list[Settled]


def _sorted(others: Iterable[Settled], versions: Mapping[int, int], positions: Mapping[int, int]) -> Others:
    """Decides what each outcome does. `versions`: of the rows that are there. `positions`: of the brokers. Pure."""
    found = Others({state: [] for state in KINDS}, [], [])
    for o in others:
        if o.id in versions:
            if versions[o.id] < o.version:
                found.by_state[o.state].append(o)
        elif positions.get(o.node, 0) < o.sequence:
            found.orphans.append(o)
        elif o.state in ENDS and not o.in_pg:
            found.unseen.append(o)
    return found


async def _settle_others(
    store: ShardStore, connection: AsyncConnection[Any], tail: Tail, ids: dict[str, int], ledger: Ledger, clock: int
) -> int:
    """Writes outcomes this broker logged of messages that are not in this tail. Returns how many were refused."""
    if not tail.others:
        return 0
    rows = await (await connection.execute(sql("versions"), {"ids": list(tail.others)}, binary=True)).fetchall()
    positions = {b.node: b.position for b in await store.brokers_in(connection)}
    by_state, orphans, unseen = _sorted(tail.others.values(), {id: version for id, version, _ in rows}, positions)
    for o in unseen:
        ledger.add(ids[o.topic.decode()], "enqueued")
        ledger.add(ids[o.topic.decode()], END_OF_STATE[o.state])
    await connection.execute(sql("delete_leases"), {"ids": [o.id for ended in by_state.values() for o in ended]})

    async def wait(some: Sequence[Settled]) -> None:
        await connection.execute(sql("settle_rows"), _columns(some))

    async def bury(some: Sequence[Settled]) -> None:
        for (topic_id,) in await fetch(connection, "bury_rows", **_columns(some), died_at=clock):
            ledger.add(topic_id, "dead")

    async def set_aside(o: Settled, reason: str) -> None:
        await aside.changed_row(connection, o.id, ids[o.topic.decode()], o.state, o.version, o.attempts, o.due, o.error.decode(), reason)

    refused = await aside.by_parts(connection, by_state[b"n"], wait, set_aside)
    refused += await aside.by_parts(connection, by_state[b"x"], bury, set_aside)
    for state in ENDS:
        ended = [(o.id, o.version) for o in by_state[state]]
        for topic_id in (await write.delete_messages(connection, ended)).values() if ended else ():
            ledger.add(topic_id, END_OF_STATE[state])
    if orphans:
        await connection.execute(sql("put_orphans"), _columns(orphans))
    return refused


def _columns(outcomes: Sequence[Settled]) -> dict[str, list[Any]]:
    return {
        "ids": [o.id for o in outcomes],
        "kinds": [KINDS[o.state] for o in outcomes],
        "versions": [o.version for o in outcomes],
        "attempts": [o.attempts for o in outcomes],
        "dues": [o.due for o in outcomes],
        "nodes": [o.node for o in outcomes],
        "sequences": [o.sequence for o in outcomes],
        "errors": [o.error.decode() for o in outcomes],
    }
