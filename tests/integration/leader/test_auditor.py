"""The audit compares one topic a step, counts a bounded number of its rows, and finds what does not add up."""

import pytest
from by_hand import TOPIC, enqueue, serve
from stores import World

from mqueue.broker.daemons.auditor import Auditor, drift_of
from mqueue.broker.store.queries import sql

ROWS, ROWS_MAX = 50_000, 1_000
BLOCKS_MAX = 100  # of 8 KiB; the index of ROWS has some hundreds
FILL = """
INSERT INTO message (id, topic_id, priority, rank, deliver_after_us, attempts, max_retries, version, lease_ms, origin_node, origin_sequence,
                     created_at_us, payload)
SELECT n, %(topic_id)s, 0, 0, n, 0, 3, 1, 30000, 1, n, n, '\\x00' FROM generate_series(1, %(rows)s) n
"""


def _turn(world: World, auditor: Auditor) -> int | None:
    topics = 0
    while world.run(auditor.look(world.store)):
        topics += 1
        assert topics < 10, "a turn ends"
    return auditor.drift


def test_a_turn_finds_what_does_not_add_up(world: World) -> None:
    world.run(world.fresh())
    serve(world)
    enqueue(world, 3)
    world.run(world.flusher.flush(world.lead, everything=True))
    world.run(world.store.topic_ids(["t/empty"]))
    auditor = Auditor()
    assert auditor.drift is None
    assert _turn(world, auditor) == 0
    world.run(world.connection.execute("DELETE FROM message WHERE id = (SELECT min(id) FROM message)"))
    assert _turn(world, auditor) == 1
    assert _turn(world, auditor) == 1, "each turn begins at 0"


def test_a_step_counts_a_bounded_number_of_rows(world: World) -> None:
    world.run(world.fresh())
    [topic_id] = world.run(world.store.topic_ids([TOPIC])).values()
    world.run(world.connection.execute(FILL, {"topic_id": topic_id, "rows": ROWS}))
    world.run(world.connection.execute("UPDATE topic SET enqueued = %s WHERE id = %s", [ROWS, topic_id]))

    async def blocks_read() -> int:
        arguments = {"after": 0, "limit": ROWS_MAX}
        explained = await world.connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql("audit_topic"), arguments)
        [(plans,)] = await explained.fetchall()
        read = plans[0]["Plan"]
        return int(read["Shared Hit Blocks"] + read["Shared Read Blocks"])

    assert world.run(blocks_read()) < BLOCKS_MAX
    assert _turn(world, Auditor(ROWS_MAX)) == 0
    world.run(world.connection.execute("UPDATE topic SET enqueued = 400 WHERE id = %s", [topic_id]))
    assert _turn(world, Auditor(ROWS_MAX)) == ROWS_MAX - 400, "at least"


@pytest.mark.parametrize(("told", "counted", "drift"), [(5, 5, 0), (5, 3, 2), (3, 5, 2), (-1, 0, 1), (10, 10, 0), (99, 10, 0), (4, 10, 6)])
def test_a_drift_is_what_is_certain(told: int, counted: int, drift: int) -> None:
    assert drift_of(told, counted, 10) == drift
