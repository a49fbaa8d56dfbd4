"""Fetches wait here for a message, on this broker. A message that becomes ready wakes one of them, on whichever broker
it waits.

The fetch script puts this node into the topic's `waiters` in Redis where it finds nothing; the script that places a
message takes one node out and pushes the topic onto that node's wake list; the broker blocks on its list and wakes its
first waiter, who fetches again. A look every LOOK_S makes up for a word that got lost with a broker.

A fetch over topics that Redis does not know waits for the leader to open them, and looks again when the last of them
is: the leader tells every broker that waits which topics are open now.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

from mqueue.errors import Unavailable
from mqueue.message import TopicName

WAITERS_MAX = 10_000
LOOK_S = 1.5


class Waiter:
    __slots__ = ("event", "topics")

    def __init__(self, topics: tuple[TopicName, ...]) -> None:
        self.topics = topics
        self.event = asyncio.Event()


class Opening:
    """A fetch of these topics that waits until the leader has opened some. `event`: all it waits for are open."""

    __slots__ = ("_closed", "_mine", "_told", "event")

    def __init__(self, topics: Iterable[str]) -> None:
        self.event = asyncio.Event()
        self._mine = frozenset(topics)
        self._closed: set[str] = set()
        self._told: set[str] = set()

    def look(self) -> None:
        """Begins anew: what is told from here on may not be in the answer that comes."""
        self._told.clear()

    def wait_for(self, closed: Iterable[str]) -> None:
        """Waits for these but what was told since the look began."""
        self._closed = set(closed) - self._told
        if self._closed:
            self.event.clear()
        else:
            self.event.set()

    def told(self, topics: AbstractSet[str]) -> None:
        mine = self._mine & topics
        self._told |= mine
        self._closed -= mine
        if not self._closed:
            self.event.set()


class Waiters:
    def __init__(self) -> None:
        self._queues: dict[TopicName, deque[Waiter]] = {}
        self._openings: dict[Opening, None] = {}  # in the order of asking
        self.count = 0

    @contextmanager
    def opening(self, topics: Iterable[str]) -> Iterator[Opening]:
        """Hears what of these is opened, until the block ends."""
        opening = Opening(topics)
        self._openings[opening] = None
        try:
            yield opening
        finally:
            del self._openings[opening]

    def opened(self, topics: Iterable[str]) -> None:
        """Tells the fetches that wait for it which topics are open now (`namespace/topic`)."""
        named = frozenset(topics)
        for opening in self._openings:
            opening.told(named)

    def add(self, topics: Iterable[TopicName]) -> Waiter:
        """Adds a fetch that waits. Raises Unavailable when too many wait."""
        if self.count >= WAITERS_MAX:
            raise Unavailable("too many fetches wait", retry_after=1)
        waiter = Waiter(tuple(topics))
        self.count += 1
        for topic in waiter.topics:
            self._queues.setdefault(topic, deque()).append(waiter)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        self.count -= 1
        for topic in waiter.topics:
            queue = self._queues[topic]
            queue.remove(waiter)
            if not queue:
                del self._queues[topic]

    def wake(self, topic: TopicName, count: int = 1) -> bool:
        """Wakes the first `count` waiters of a topic that sleep; False when none does."""
        woken = 0
        for waiter in self._queues.get(topic, ()):
            if not waiter.event.is_set():
                waiter.event.set()
                woken += 1
                if woken == count:
                    break
        return woken > 0

    def others(self, topics: Iterable[TopicName]) -> bool:
        """Does anybody else than the caller wait on one of these?"""
        return any(len(self._queues.get(topic, ())) > 1 for topic in topics)

    def look(self) -> None:
        """Lets one waiter of each topic look again, which renews the node's entry in Redis."""
        for topic in list(self._queues):
            self.wake(topic)
