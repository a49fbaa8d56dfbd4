"""What ended is to be settled: here it waits, and it is decided what goes together, and what waits longer since it was
refused or not answered.

Settles go in the order in which they came, as many as a poll takes. Where a poll with settles gets no answer, each kind
of them (topic, and whether they bring results) is tried by itself, after a pause that grows while it fails: the shard
of one topic may be away, or only what keeps results, and the others must not wait for that. One that is refused, or
cannot be sent, may have had company that is to blame: they go again one by one.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mqueue import message as m
from mqueue import wire
from mqueue.worker.polling.pause import Pause
from mqueue.worker.tasks.job import Job

RESULT_BYTES = 4 * 1024 * 1024  # of results in one poll; one is always sent

Kind = tuple[str, str, bool]


@dataclass(slots=True, eq=False)
class End:
    """A message has ended, and this is its settle. `job` None: it never became one. `alone`: it was refused, or what it
    went with.
    """

    settle: wire.PollSettle
    job: Job | None
    alone: bool = False

    @property
    def kind(self) -> Kind:
        return self.settle.namespace, self.settle.topic, self.settle.result is not None


class Settles:
    """It keeps what is to be settled, in the order in which that ended."""

    def __init__(self) -> None:
        self._ends: deque[End] = deque()
        self._pauses: dict[Kind, Pause] = {}  # of the kinds whose last settles were not answered
        self._alone = 0

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, end: End) -> None:
        self._ends.append(end)

    def due(self, now: float) -> int:
        """Counts how many may go."""
        return sum(self._may_go(end, now) for end in self._ends) if self._pauses else len(self._ends)

    def due_at(self) -> float:
        """Says when the first may go."""
        if not self._pauses:
            return 0.0
        pauses = (self._pauses.get(end.kind) for end in self._ends)
        return min((0.0 if pause is None else math.inf if pause.trying else pause.until for pause in pauses), default=0.0)

    def take(self, now: float) -> tuple[list[End], bool]:
        """Takes the next poll's, and says whether they must go without a fetch, which they could spoil again."""
        if not self._pauses and not self._alone:
            return self._take(lambda end: True), False
        first = next((end for end in self._ends if self._may_go(end, now)), None)
        if first is None:
            return [], False
        if (pause := self._pauses.get(kind := first.kind)) is not None:
            pause.trying = True
        if first.alone:
            self._ends.remove(first)
            self._alone -= 1
            return [first], True
        if pause is not None:
            return self._take(lambda end: not end.alone and end.kind == kind), True
        return self._take(lambda end: not end.alone and end.kind not in self._pauses), False

    def landed(self, ends: Sequence[End]) -> None:
        """The poll with them is back, or has failed."""
        for end in ends if self._pauses else ():
            if (pause := self._pauses.get(end.kind)) is not None:
                pause.trying = False

    def give_back(self, ends: Sequence[End]) -> None:
        """They were not sent, or nothing is known of them."""
        self._ends.extendleft(reversed(ends))
        self._alone += sum(end.alone for end in ends)

    def refused(self, ends: Sequence[End]) -> None:
        """The broker refused them, or one of them: each goes alone."""
        for end in ends:
            end.alone = True
        self.give_back(ends)

    def unanswered(self, ends: Sequence[End], now: float, asked: float | None, jitter: float) -> bool:
        """There was no answer: they go back, and wait. Is this news of any of them? `asked`: seconds that the broker
        asks for.
        """
        self.give_back(ends)
        kinds = {end.kind for end in ends}
        news = not kinds <= self._pauses.keys()
        for kind in kinds:
            self._pauses.setdefault(kind, Pause()).extend(now, asked, jitter)
        return news

    def answered(self, ends: Sequence[End]) -> bool:
        """There was an answer. Is this news of any of them?"""
        known = {end.kind for end in ends} & self._pauses.keys() if self._pauses else set()
        for kind in known:
            del self._pauses[kind]
        return bool(known)

    def resume(self) -> None:
        """Whatever was not answered may go again now."""
        for pause in self._pauses.values():
            pause.until = 0.0

    def _may_go(self, end: End, now: float) -> bool:
        pause = self._pauses.get(end.kind)
        return pause is None or (pause.until <= now and not pause.trying)

    def _take(self, fits: Callable[[End], bool]) -> list[End]:
        """Takes from the front, as many as a poll takes."""
        taken: list[End] = []
        left: list[End] = []
        size = 0
        while self._ends and len(taken) < m.BATCH_MAX:
            end = self._ends.popleft()
            if not fits(end):
                left.append(end)
                continue
            size += len(end.settle.result or b"")
            if size > RESULT_BYTES and taken:
                left.append(end)
                break
            taken.append(end)
        self._ends.extendleft(reversed(left))
        return taken
