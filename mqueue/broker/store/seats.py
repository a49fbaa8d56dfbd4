"""What PostgreSQL says of a shard as a whole, and of each broker in it."""

from dataclasses import dataclass
from typing import NamedTuple

NODES_MAX = 1023  # node numbers go from 1 to this one
CLOCK_OFF_S = 30.0  # a wall clock that is further off that of PostgreSQL does not agree with it


@dataclass(frozen=True, slots=True)
class ShardRow:
    number: int
    shards: int
    epoch: int
    term: int
    mode: str
    run_id: str
    dirty_number: int
    clock_us: int
    timeline: int  # in which the epoch was opened
    timeline_now: int
    wall_us: int  # by PostgreSQL's clock
    server_since: float = 0.0  # when the server that answers was started


@dataclass(frozen=True, slots=True)
class BrokerRow:
    node: int
    position: int
    started: int
    replayed: int
    silent_s: float  # since its last heartbeat
    reaches: bool  # Redis, then
    seen_at: float  # its last heartbeat, s since 1970 by PostgreSQL's clock
    was_set_back: bool = False  # it has seen a position past this one: PostgreSQL forgot what it had committed
    clock_off_s: float | None = None  # by so much its wall clock was ahead of PostgreSQL's; None: its release does not tell

    @property
    def clock_agrees(self) -> bool:
        return self.clock_off_s is not None and abs(self.clock_off_s) <= CLOCK_OFF_S


class Registered(NamedTuple):
    """What a broker's numbers must begin after: sequences past `position` and `started`, ids at `id_floor_ms` (since
    2024) or later.
    """

    node: int
    position: int
    started: int
    id_floor_ms: int


@dataclass(frozen=True, slots=True)
class Seat:
    """What a broker is in one shard's database, by its identity."""

    node: int
    position: int
    started: int
    silent_s: float  # since its last heartbeat; very long after a clean stop
