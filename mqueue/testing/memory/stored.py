"""This is a message of the broker in memory, and how the wire shows it."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from mqueue import message as m
from mqueue import wire
from mqueue.schedule import moment
from mqueue.testing.memory.results import Kept

LEASE_S = 30.0  # as `mqueue broker` has them by default
RETRIES = 3
State = Literal["ready", "delayed", "leased", "dead"]


@dataclass(slots=True)
class Stored:
    """It waits, is leased (`receipt`, `until_us`) or is dead (`died_us`). Times: µs since 1970."""

    id: int
    item: wire.EnqueueItem
    created_us: int
    due_us: int
    expires_us: int | None
    attempts: int = 0
    receipt: str | None = None
    until_us: int = 0
    died_us: int | None = None
    error: str | None = None
    cancelling: bool = False
    turn: int = 0  # how often it let others go first; the clock may stand still meanwhile

    @property
    def key(self) -> tuple[int, int, int, int]:
        """Messages are delivered in the order of their keys, least first."""
        return self.item.priority, self.due_us, self.turn, self.id

    @property
    def leased(self) -> bool:
        return self.receipt is not None

    @property
    def dead(self) -> bool:
        return self.died_us is not None

    @property
    def comes_us(self) -> int:
        """From then on it can be fetched, unless its lease is renewed."""
        return max(self.due_us, self.until_us) if self.leased else self.due_us

    @property
    def name(self) -> m.TopicName:
        return m.TopicName(self.item.namespace, self.item.topic)

    @property
    def max_retries(self) -> int:
        return RETRIES if self.item.max_retries is None else self.item.max_retries

    @property
    def lease_s(self) -> float:
        return max(self.item.lease or LEASE_S, m.LEASE_LEAST_S)

    @property
    def weight(self) -> int:
        """How many bytes does it take of a page of dead letters?"""
        metadata = 0 if self.item.metadata is None else len(msgspec.json.encode(self.item.metadata))
        return m.letter_weight(len(self.item.payload), metadata, len((self.error or "").encode()))

    def state(self, now_us: int) -> State:
        if self.dead:
            return "dead"
        if self.leased:
            return "leased"
        return "delayed" if self.due_us > now_us else "ready"

    def message(self, receipt: str, lease_s: float) -> wire.Message:
        """Returns it as it goes to a worker, leased."""
        return wire.Message(
            id=self.id,
            namespace=self.item.namespace,
            topic=self.item.topic,
            priority=self.item.priority,
            payload=self.item.payload,
            metadata=self.item.metadata,
            deliver_after=moment(self.due_us),
            created_at=moment(self.created_us),
            attempt=self.attempts + 1,
            max_retries=self.max_retries,
            receipt=receipt,
            lease_expires_at=moment(self.until_us),
            lease=lease_s,
        )

    def status(self, now_us: int) -> wire.Status:
        return wire.Status(
            id=self.id,
            namespace=self.item.namespace,
            topic=self.item.topic,
            state=self.state(now_us),
            priority=self.item.priority,
            attempts=self.attempts,
            max_retries=self.max_retries,
            payload=self.item.payload,
            deliver_after=moment(self.due_us),
            created_at=moment(self.created_us),
            error=self.error,
            metadata=self.item.metadata,
            cancelling=self.cancelling,
        )

    def dead_item(self) -> wire.DeadItem:
        return wire.DeadItem(
            id=self.id,
            namespace=self.item.namespace,
            topic=self.item.topic,
            priority=self.item.priority,
            payload=self.item.payload,
            attempts=self.attempts,
            created_at=moment(self.created_us),
            died_at=moment(self.died_us or 0),
            error=self.error,
            metadata=self.item.metadata,
        )


def done(id: int, kept: Kept) -> wire.Status:
    """Returns the status of a message of which only the result is left. The times are those of the result."""
    at = moment(kept.stored_us)
    return wire.Status(
        id=id,
        namespace=kept.name.namespace,
        topic=kept.name.topic,
        state="done",
        priority=0,
        attempts=0,
        max_retries=0,
        payload=b"",
        deliver_after=at,
        created_at=at,
    )
