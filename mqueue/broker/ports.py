"""The ports say what the HTTP layer may ask of the engine. The adapters below the engine have their own contracts
beside their code.
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
    """The use cases of periodic tasks. They raise Invalid, Unavailable; NotFound where a name is not there."""

    async def page(self, namespace: str, after: str, limit: int) -> list[Schedule]:
        """Returns them by name, above `after`; without their payloads."""
        ...

    async def find(self, namespace: str, name: str) -> Schedule: ...

    async def put(self, wanted: Schedule, *, declares: bool) -> Schedule:
        """Makes or replaces it. `declares`: changes nothing where code declared the same before."""
        ...

    async def pause(self, namespace: str, name: str) -> Schedule: ...

    async def resume(self, namespace: str, name: str) -> Schedule:
        """Lets it go on with the next tick from now."""
        ...

    async def run(self, namespace: str, name: str, key: RequestKey | None) -> int:
        """Enqueues one message now, beside its ticks; returns its id."""
        ...

    async def delete(self, namespace: str, name: str) -> bool:
        """Deletes it. Was it there?"""
        ...


class Asks:
    """Is what a fetch and whoever asked for it tell each other meanwhile. `gone()`: has the client hung up? `said`: the
    fetch is to answer with what there is now; `wake` is the fetch's. `missing`: the shards that gave no answer;
    `given_up`: those of former looks, which may have leased, and give that back. `takes_less`: does the answer name
    them, so that it may be empty because of them?
    """

    def __init__(self, gone: Callable[[], bool] = lambda: False, *, takes_less: bool = False) -> None:
        self.gone = gone
        self.takes_less = takes_less
        self.said = False
        self.wake: Callable[[], None] = lambda: None
        self.missing: set[int] = set()
        self.given_up: set[int] = set()

    @property
    def named(self) -> list[int]:
        """The shards of which the answer says that something may be missing."""
        return sorted(self.missing | self.given_up)

    def look_again(self) -> None:
        self.given_up |= self.missing
        self.missing.clear()

    def say_enough(self) -> None:
        self.said = True
        self.wake()


class Engine(Protocol):
    """The use cases. Every method may raise `Unavailable` (nothing promised) and its subclasses; all times and limits
    are checked before.
    """

    @property
    def schedules(self) -> Schedules: ...

    async def enqueue(self, messages: Sequence[NewMessage], key: RequestKey | None = None, durability: Durability = "wal") -> Accepted:
        """Enqueues all or nothing per shard. `key`: of the whole request; then no message has one of its own.
        `durability`: at least this.

        Raises KeyReused, InFlight, QuotaExceeded, BufferFull, Invalid (with item, field).
        """
        ...

    async def fetch(
        self, namespace: str, topics: Sequence[str], limit: int, wait: float = 0.0, lease: float | None = None, asks: Asks | None = None
    ) -> list[Delivery]:
        """Leases up to `limit` messages, least key first; waits up to `wait` s, or until enough was said. It is empty
        only when nothing was deliverable; where other shards have something, it names those that gave no answer.

        Cancelling the call (the client hung up) loses nothing; what was leased for it is given back, without an
        attempt.
        """
        ...

    async def settle(self, settles: Sequence[Settle]) -> list[Verdict]:
        """Settles at most BATCH_MAX messages, and returns verdicts in order. Raises TooLarge for a result, before
        anything is settled.
        """
        ...

    async def extend(self, extends: Sequence[Extend]) -> list[Verdict]: ...

    async def cancel(self, id: int, namespaces: Collection[str] | None) -> Cancelled:
        """Cancels a message of these namespaces (None: of all); anything else is `gone`, as is what has ended."""
        ...

    async def wait_cancelled(self, namespaces: Sequence[str], since: str | None, seconds: float) -> tuple[str, list[int]]:
        """Returns where to go on, and the ids of running messages whose cancellation was asked for after `since`; waits
        up to `seconds` for one.

        Raises Invalid. May be cancelled.
        """
        ...

    async def dead_letters(self, namespace: str, topic: str, limit: int, after: int = 0) -> list[DeadLetter]:
        """Returns dead letters by id, from the first above `after`."""
        ...

    async def delete_dead(self, namespace: str, topic: str, ids: Sequence[int]) -> list[Verdict]:
        """Deletes dead letters. Says `ok` where one went, `gone` where there was none."""
        ...

    async def topics(self, namespaces: Sequence[str] | None, missing: set[int] | None = None) -> list[TopicStats]:
        """Returns all topics of these namespaces (None: of all). `missing` gets the shards that gave no answer."""
        ...

    async def message(self, id: int, namespaces: Collection[str] | None = None, name: TopicName | None = None) -> MessageStatus | None:
        """Looks for a message of these namespaces (None: of all); only in the shard of its topic, if that is named."""
        ...

    async def result(self, id: int, name: TopicName | None, wait: float = 0.0, namespaces: Collection[str] | None = None) -> ResultLook | None:
        """Returns done or dead as soon as it is, else how far it is after `wait` s; None where it is not known, or not
        there to be seen.
        """
        ...

    async def hear_worker(self, report: WorkerReport, *, stopped: bool = False) -> None:
        """Takes what a worker tells; `stopped`: it is to be forgotten. It is shown within a second."""
        ...

    async def workers(self, namespaces: Sequence[str] | None) -> list[tuple[str, int]]:
        """Returns what each worker told last, and when (µs): of those with a topic in these namespaces
        (None: of all).
        """
        ...

    def readiness(self) -> list[Readiness]:
        """Tells how each shard is."""
        ...
