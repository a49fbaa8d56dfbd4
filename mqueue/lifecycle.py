"""The states of a message, and the only table of its transitions.

`state` is the first byte of a record (`mqueue/broker/format/record.py`). What is leased may be *cancelling*: then it
ends CANCELLED unless it is acked.

The table is held from two sides. Each Lua script and SQL statement that changes a state names its moves in its header
(`-- moves: LEASED -ack-> ACKED`), and together these headers are this table (`tests/tidy`). The order machine
(`tests/integration`) looks at all records after each step, and allows only the moves of the scripts and statements that
ran in it.
"""

from enum import Enum


class State(bytes, Enum):
    UNPLACED = b"n"  # Redis has no record of it: a new message, or one that PostgreSQL alone has
    READY = b"r"  # in its topic's `ready`, below the frontier
    DELAYED = b"d"  # not yet due
    LEASED = b"l"  # a worker has it
    SPILL = b"s"  # due, at or above the frontier, and PostgreSQL may not have it yet
    DEAD = b"x"  # retries ended or buried; goes to the dead letters with the next flush
    ACKED = b"a"  # the three ends: kept only until the flush that deletes the row
    EXPIRED = b"e"
    CANCELLED = b"c"


GONE = frozenset({State.ACKED, State.EXPIRED, State.CANCELLED})

# UNPLACED is where a message begins, where it waits past Redis, and where Redis puts what PostgreSQL has and it has no
# room for. `clear` is the end of an epoch: what Redis had is gone. A DEAD record gives way to a row that is newer.
TRANSITIONS: dict[tuple[State, str], frozenset[State]] = {
    (State.UNPLACED, "enqueue"): frozenset({State.READY, State.DELAYED, State.SPILL}),
    (State.UNPLACED, "refill"): frozenset({State.READY}),
    (State.UNPLACED, "scan"): frozenset({State.DELAYED}),
    (State.UNPLACED, "arrive"): frozenset({State.READY, State.DELAYED}),
    (State.UNPLACED, "load"): frozenset({State.LEASED}),
    (State.UNPLACED, "fetch"): frozenset({State.LEASED}),
    (State.UNPLACED, "ttl"): frozenset({State.EXPIRED}),
    (State.UNPLACED, "cancel"): frozenset({State.CANCELLED}),
    (State.READY, "fetch"): frozenset({State.LEASED}),
    (State.READY, "ttl"): frozenset({State.EXPIRED}),
    (State.READY, "spill"): frozenset({State.SPILL, State.UNPLACED}),
    (State.READY, "evict"): frozenset({State.SPILL, State.UNPLACED}),
    (State.READY, "cancel"): frozenset({State.CANCELLED}),
    (State.READY, "clear"): frozenset({State.UNPLACED}),
    (State.SPILL, "refill"): frozenset({State.READY}),
    (State.SPILL, "flush"): frozenset({State.UNPLACED}),
    (State.SPILL, "cancel"): frozenset({State.CANCELLED}),
    (State.SPILL, "clear"): frozenset({State.UNPLACED}),
    (State.DELAYED, "promote"): frozenset({State.READY, State.SPILL, State.UNPLACED}),
    (State.DELAYED, "flush"): frozenset({State.UNPLACED}),
    (State.DELAYED, "scan"): frozenset({State.UNPLACED}),
    (State.DELAYED, "cancel"): frozenset({State.CANCELLED}),
    (State.DELAYED, "clear"): frozenset({State.UNPLACED}),
    (State.LEASED, "ack"): frozenset({State.ACKED}),
    (State.LEASED, "nack"): frozenset({State.READY, State.DELAYED, State.SPILL, State.UNPLACED, State.DEAD, State.CANCELLED}),
    (State.LEASED, "release"): frozenset({State.READY, State.DELAYED, State.SPILL, State.UNPLACED, State.CANCELLED}),
    (State.LEASED, "bury"): frozenset({State.DEAD, State.CANCELLED}),
    (State.LEASED, "lease_expiry"): frozenset({State.READY, State.SPILL, State.UNPLACED, State.DEAD, State.CANCELLED}),
    (State.LEASED, "cancel"): frozenset({State.CANCELLED}),
    (State.LEASED, "clear"): frozenset({State.UNPLACED}),
    (State.DEAD, "refill"): frozenset({State.READY}),
    (State.DEAD, "scan"): frozenset({State.DELAYED}),
    (State.DEAD, "arrive"): frozenset({State.READY, State.DELAYED, State.UNPLACED}),
}
