"""The states of a message and the only table of its transitions. Tests hold the Lua and SQL headers against it.

`state` is the first byte of a record (`mqueue/broker/format/record.py`). What is leased may be *cancelling*: then it
ends CANCELLED unless it is acked.
"""

from enum import Enum


class State(bytes, Enum):
    READY = b"r"  # in its topic's `ready`, below the frontier
    DELAYED = b"d"  # not yet due
    LEASED = b"l"  # a worker has it
    SPILL = b"s"  # due, at or above the frontier, and PostgreSQL may not have it yet
    DEAD = b"x"  # retries ended or buried; goes to the dead letters with the next flush
    ACKED = b"a"  # the four ends: kept only until the flush that deletes the row
    EXPIRED = b"e"
    PURGED = b"p"
    CANCELLED = b"c"


WAITING = frozenset({State.READY, State.DELAYED, State.SPILL})
GONE = frozenset({State.ACKED, State.EXPIRED, State.PURGED, State.CANCELLED})

TRANSITIONS: dict[tuple[State, str], frozenset[State]] = {
    (State.READY, "fetch"): frozenset({State.LEASED}),
    (State.READY, "ttl"): frozenset({State.EXPIRED}),
    (State.READY, "spill"): frozenset({State.SPILL}),
    (State.READY, "cancel"): frozenset({State.CANCELLED}),
    (State.SPILL, "refill"): frozenset({State.READY}),
    (State.SPILL, "cancel"): frozenset({State.CANCELLED}),
    (State.DELAYED, "cancel"): frozenset({State.CANCELLED}),
    (State.DELAYED, "promote"): frozenset({State.READY, State.SPILL}),
    (State.LEASED, "ack"): frozenset({State.ACKED}),
    (State.LEASED, "nack"): frozenset({State.READY, State.SPILL, State.DELAYED, State.DEAD, State.CANCELLED}),
    (State.LEASED, "release"): frozenset({State.READY, State.SPILL, State.DELAYED, State.CANCELLED}),
    (State.LEASED, "bury"): frozenset({State.DEAD, State.CANCELLED}),
    (State.LEASED, "lease_expiry"): frozenset({State.READY, State.SPILL, State.DEAD, State.CANCELLED}),
    (State.LEASED, "cancel"): frozenset({State.CANCELLED}),
}
