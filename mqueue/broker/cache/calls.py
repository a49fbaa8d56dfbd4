"""This module types what goes into the scripts, and what comes out of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Enqueue(NamedTuple):
    """One message of a batch, as apply.lua takes it. `group`: the number of its request in the batch, which is enqueued
    whole or not at all.
    `key_hash` empty: it has no idempotency key. `key`: as record.IDEMPOTENCY packs it.

    `unique` empty: no unique key. `rows`: what PostgreSQL has under it (store/rows.py); empty: it is in use by nobody.
    """

    group: int
    record: bytes
    body: bytes
    key_hash: bytes
    key: bytes
    unique: bytes = b""
    rows: bytes = b""

    @property
    def keyed(self) -> bool:
        return bool(self.key_hash or self.unique)


class SettleArgs(NamedTuple):
    """One settle of a batch, as apply.lua takes it. `delays`: µs (f8) by how many attempts failed before; empty for an
    ack. Where somebody without a lease asks to cancel, it is the row that PostgreSQL has.
    """

    id: bytes
    topic: bytes
    kind: str
    receipt: bytes
    error: bytes
    delays: bytes


class Outcome(NamedTuple):
    """What a settle did. `verdict`: o ok, s stale, g no record; of a cancel that is asked for also a already, r
    running, l look again. `state`: a acked, c cancelled, x dead, n waits again.
    """

    verdict: bytes
    state: bytes
    version: int
    attempts: int
    due: int
    node: int
    sequence: int
    in_pg: int


def is_logged(args: SettleArgs, outcome: Outcome) -> bool:
    """Has it changed what the log must know?"""
    return outcome.verdict == b"o" and (outcome.state != b"n" or args.kind != "release" or bool(args.delays))


def asks_to_cancel(args: SettleArgs) -> bool:
    """Is this asked for by somebody who has no lease?"""
    return args.kind == "cancel" and not args.receipt


@dataclass(slots=True)
class Applied:
    """What a batch was answered. `frontier`: T, the time frontier; what is due below it is in Redis."""

    due_clock: int
    clock: int
    frontier: int
    buffer: int
    verdicts: list[tuple[bytes, bytes]]
    outcomes: list[Outcome]


@dataclass(slots=True)
class Fetched:
    """What a fetch was answered. `status`: ok, more, ask, nothing. `closed`: the topics that need the leader; of an ok
    those that were left out.
    """

    status: str
    clock: int = 0
    records: Sequence[bytes] = ()
    bodies: Sequence[bytes] = ()
    left: int = 0
    closed: Sequence[str] = ()


class Clocks(NamedTuple):
    """What is due by now, the shard clock, and T, in µs."""

    due_clock: int
    clock: int
    frontier: int


@dataclass(slots=True)
class Tick:
    """What a tick was answered, in µs. `lag`: how far the shard clock is behind that of Redis. `jumps`: how often the
    clock of Redis has jumped, ever. `wait`: until something is due, or a lease ends.
    """

    clock: int
    lag: int
    jumps: int
    wait: int


@dataclass(slots=True)
class FlushPage:
    entries: list[bytes]
    ids: list[bytes]
    records: list[bytes | None]
    in_pg: bytes
    bodies: list[bytes | None]
    errors: list[bytes | None]
    key_hashes: list[bytes]
    keys: list[bytes | None]


@dataclass(slots=True)
class RefillBegun:
    """What a refill begins with. `topics`: by topic its frontier (empty: unknown) and how many are ready."""

    clock: int
    t_id: int
    t_due: int
    cap: int
    hard: int
    page: int  # bytes that the pages of all may have
    tight: bool  # that is for topics alone that have nothing ready, and others must make room
    topics: dict[str, tuple[bytes, int]]


class Refilled(NamedTuple):
    """What a refill has done to a topic: rows loaded, spill brought along, its frontier, how many are ready."""

    loaded: int
    brought: int
    frontier: bytes
    ready: int


class ScanBegun(NamedTuple):
    """`room`: records that `delayed` has room for. `page`: bytes that a page may have; 0: there is no room."""

    clock: int
    t_due: int
    t_id: int
    room: int
    page: int


@dataclass(slots=True)
class Crowd:
    """How much of its budget Redis has used, in bytes. `soft`: beyond it nothing is loaded. `topics`: name, when it was
    last fetched from (clock µs), how many are ready.
    """

    used: int
    soft: int
    topics: list[tuple[str, int, int]]


@dataclass(slots=True)
class Depths:
    """How much Redis holds of a topic."""

    ready: int
    spill: int
    delayed: int
    leased: int
    unflushed: int
    dead: int


@dataclass(slots=True)
class Limits:
    ready_cap: int
    ready_hard: int
    delayed_max: int
    buffer_max: int
    redis_max: int  # bytes of all that Redis may hold
