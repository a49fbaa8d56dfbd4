"""What the HTTP layer may ask of the engine. The adapters below the engine have their own contracts beside their
code.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from mqueue.message import (
    Accepted,
    Cancelled,
    DeadLetter,
    Delivery,
    Durability,
    Extend,
    MessageStatus,
    NewMessage,
    Readiness,
    RequestKey,
    ResultLook,
    Settle,
    TopicName,
    TopicStats,
    Verdict,
    WorkerReport,
)  # fmt: skip
from mqueue.schedule import Schedule


class Schedules(Protocol):
    """Periodic tasks. Raises Invalid, Unavailable; NotFound where a name is not there."""

    async def page(self, namespace: str, after: str, limit: int) -> list[Schedule]:
        """By name, above `after`; without their payloads."""
        ...

    async def find(self, namespace: str, name: str) -> Schedule: ...

    async def put(self, wanted: Schedule, *, declares: bool) -> Schedule:
        """Makes or replaces it. `declares`: changes nothing where code declared the same before."""
        ...

    async def pause(self, namespace: str, name: str) -> Schedule: ...

    async def resume(self, namespace: str, name: str) -> Schedule:
        """It goes on with the next tick from now."""
        ...

    async def run(self, namespace: str, name: str, key: RequestKey | None) -> int:
        """One message now, beside its ticks; its id."""
        ...

    async def delete(self, namespace: str, name: str) -> bool:
        """Was it there?"""
        ...


class Enough:
    """Said to a fetch that waits: answer with what there is now. `wake` is the fetch's."""

    def __init__(self) -> None:
        self.said = False
        self.wake: Callable[[], None] = lambda: None

    def say(self) -> None:
        self.said = True
        self.wake()


class Engine(Protocol):
    """The use cases. Every method may raise `Unavailable` (nothing promised) and its subclasses; all times and limits
    are checked before.
    """

    @property
    def schedules(self) -> Schedules: ...

    async def enqueue(self, messages: Sequence[NewMessage], key: RequestKey | None = None, durability: Durability = "wal") -> Accepted:
        """All or nothing per shard. `key`: of the whole request; then no message has one of its own. `durability`: at
        least this.

        Raises KeyReused, InFlight, QuotaExceeded, BufferFull, Invalid (with item, field).
        """
        ...

    async def fetch(
        self, namespace: str, topics: Sequence[str], limit: int, wait: float = 0.0, lease: float | None = None, enough: Enough | None = None
    ) -> list[Delivery]:
        """Up to `limit` messages, least key first; waits up to `wait` s, or until it is `enough`. Empty only when
        nothing was deliverable.

        Cancelling the call (the client hung up) while it waits loses nothing; what was leased for it comes back with
        its lease.
        """
        ...

    async def settle(self, settles: Sequence[Settle]) -> list[Verdict]:
        """Verdicts in order. At most BATCH_MAX. Raises TooLarge for a result, before anything is settled."""
        ...

    async def extend(self, extends: Sequence[Extend]) -> list[Verdict]: ...

    async def cancel(self, id: int, namespaces: Collection[str] | None) -> Cancelled:
        """Of these namespaces (None: of all): anything else is `gone`, as is what has ended."""
        ...

    async def wait_cancelled(self, namespaces: Sequence[str], since: str | None, seconds: float) -> tuple[str, list[int]]:
        """Ids of running messages whose cancellation was asked for after `since`; waits up to `seconds` for one. Where
        to go on, and the ids.

        Raises Invalid. May be cancelled.
        """
        ...

    async def dead_letters(self, namespace: str, topic: str, limit: int, after: int = 0) -> list[DeadLetter]:
        """By id, from the first above `after`."""
        ...

    async def delete_dead(self, namespace: str, topic: str, ids: Sequence[int]) -> list[Verdict]:
        """`ok` where a dead letter went, `gone` where there was none."""
        ...

    async def topics(self, namespaces: Sequence[str] | None) -> list[TopicStats]:
        """All topics of these namespaces (None: of all)."""
        ...

    async def message(self, id: int, namespaces: Collection[str] | None = None) -> MessageStatus | None:
        """Of these namespaces (None: of all) only."""
        ...

    async def result(self, id: int, name: TopicName | None, wait: float = 0.0, namespaces: Collection[str] | None = None) -> ResultLook | None:
        """Done or dead as soon as it is, else how far it is after `wait` s; None where it is not known, or not there to
        be seen.
        """
        ...

    async def hear_worker(self, report: WorkerReport, *, stopped: bool = False) -> None:
        """What a worker tells; `stopped`: it is to be forgotten. Shown within a second."""
        ...

    async def workers(self, namespaces: Sequence[str] | None) -> list[tuple[str, int]]:
        """What each worker told last, and when (µs): of those with a topic in these namespaces (None: of all)."""
        ...

    def readiness(self) -> list[Readiness]:
        """Of every shard."""
        ...
