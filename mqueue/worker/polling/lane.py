"""A lane is the topics that one poll of a worker names, and what is known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mqueue import message as m
from mqueue.worker.polling.pause import Pause


class Batched(Protocol):
    """A task says how its messages are gathered into batches."""

    batch: int | None
    batch_wait: float


@dataclass(slots=True, eq=False)
class Lane:
    """It has topics that one poll can name: of one namespace, at most TOPICS_MAX. `batch`: its messages are for batches
    of so many.
    """

    namespace: str
    topics: list[str]
    batch: int | None = None
    batch_wait: float = 0.0  # seconds
    filling: bool = False
    hungry: bool = False
    waiting: bool = False
    asked: int = 0  # quick polls under way that fetch
    rest_until: float = 0.0  # loop time: no waiting poll before
    pause: Pause = field(default_factory=Pause)  # after polls without an answer

    @property
    def idle(self) -> bool:
        """Is there no poll of it under way?"""
        return not self.waiting and not self.asked and not self.filling


def lanes(topics: Sequence[m.TopicName], batches: Mapping[m.TopicName, Batched] | None = None) -> list[Lane]:
    """Divides the topics into lanes. `batches`: which topics are for batches, and how these are gathered; each of them
    has a lane of its own.
    """
    batches = batches or {}
    by_namespace: dict[str, list[str]] = {}
    for name in topics:
        if name not in batches:
            by_namespace.setdefault(name.namespace, []).append(name.topic)
    return [Lane(name.namespace, [name.topic], batches[name].batch, batches[name].batch_wait) for name in topics if name in batches] + [
        Lane(namespace, names[start : start + m.TOPICS_MAX])
        for namespace, names in by_namespace.items()
        for start in range(0, len(names), m.TOPICS_MAX)
    ]


def taken(lane: Lane | None, messages: int) -> int:
    """Counts the slots that so many messages of it take: a batch takes one."""
    return min(1, messages) if lane is not None and lane.batch is not None else messages
