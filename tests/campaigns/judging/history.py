"""What clients saw of one topic, and whether a strict queue could have shown it. Pure; times are monotonic seconds of
the clients' machine.

A message is *certainly deliverable* from the moment the answer that made it so had arrived, or it was due, until the
request that next leased it was sent. A fetch that was under way within such a span must not have delivered a greater
key, nor nothing. A message that never came is lost, whatever its key.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

INF = float("inf")
MARGIN_S = 0.02  # between the broker's clock and the clients' (one machine)


class Key(NamedTuple):
    priority: int
    due_us: int
    id: int


class Delivery(NamedTuple):
    key: Key
    attempt: int


class Fetch(NamedTuple):
    sent: float
    answered: float
    got: tuple[Delivery, ...]


class Span(NamedTuple):
    """`key` was certainly deliverable from `start` to `end`."""

    start: float
    end: float
    key: Key


@dataclass
class History:
    """`enqueued`, `nacked`, `acked`: by id, when the answer came. `nacked` also has when it was due again."""

    enqueued: dict[int, float] = field(default_factory=dict)
    nacked: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    acked: Counter[int] = field(default_factory=Counter)
    fetches: list[Fetch] = field(default_factory=list)
    epoch: float = 0.0  # what is added to a monotonic time to make it seconds since 1970

    def nack(self, id: int, answered: float, due: float) -> None:
        self.nacked.setdefault(id, []).append((answered, due))


@dataclass
class Verdict:
    """Everything that must not be; all empty: a strict queue."""

    inversions: list[tuple[Key, Key]] = field(default_factory=list)  # delivered, though the other was there
    unsorted: list[Fetch] = field(default_factory=list)
    untrue: list[tuple[Fetch, Key]] = field(default_factory=list)  # `[]` though this was there
    early: list[Key] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)  # delivered, never enqueued
    twice: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)  # ids whose attempt numbers do not count up from 1

    def counts(self) -> dict[str, int]:
        return {name: len(found) for name, found in vars(self).items()}

    def good(self) -> bool:
        return not any(self.counts().values())


def judge(history: History) -> Verdict:
    verdict = Verdict()
    by_id: dict[int, list[tuple[Fetch, Delivery]]] = {}
    for fetch in sorted(history.fetches, key=lambda f: f.sent):
        keys = [d.key for d in fetch.got]
        if keys != sorted(keys):
            verdict.unsorted.append(fetch)
        for delivery in fetch.got:
            by_id.setdefault(delivery.key.id, []).append((fetch, delivery))
            if fetch.answered + history.epoch < delivery.key.due_us / 1e6 - MARGIN_S:
                verdict.early.append(delivery.key)
    verdict.unknown = set(by_id) - set(history.enqueued)
    verdict.lost = {id for id in history.enqueued if history.acked[id] == 0}
    spans: list[Span] = []
    for id, deliveries in by_id.items():
        deliveries.sort(key=lambda pair: pair[1].attempt)
        nacks = len(history.nacked.get(id, ()))
        if len(deliveries) > nacks + 1 or history.acked[id] > 1:
            verdict.twice.append(id)
        elif [d.attempt for _, d in deliveries] != list(range(1, len(deliveries) + 1)):
            verdict.attempts.append(id)
        else:
            spans += _spans(history, id, deliveries)
    _look_for_inversions(spans, history.fetches, verdict)
    return verdict


def _spans(history: History, id: int, deliveries: list[tuple[Fetch, Delivery]]) -> list[Span]:
    """One before each delivery: it begins with the enqueue's answer, then with each nack's."""
    starts = [history.enqueued.get(id, INF), *(answered for answered, _ in history.nacked.get(id, ()))]
    return [
        Span(max(start, delivery.key.due_us / 1e6 - history.epoch) + MARGIN_S, fetch.sent, delivery.key)
        for start, (fetch, delivery) in zip(starts, deliveries, strict=False)
    ]


def _look_for_inversions(spans: list[Span], fetches: list[Fetch], verdict: Verdict) -> None:
    """One sweep by time: `open_` is a heap of the spans begun; those that ended before a fetch was sent never matter
    again.
    """
    coming = sorted(spans)
    open_: list[tuple[Key, float]] = []
    at = 0
    for fetch in sorted(fetches, key=lambda f: f.sent):
        while at < len(coming) and coming[at].start <= fetch.sent:
            heapq.heappush(open_, (coming[at].key, coming[at].end))
            at += 1
        aside = []
        while open_ and open_[0][1] < fetch.answered:
            span = heapq.heappop(open_)
            if span[1] >= fetch.sent:
                aside.append(span)
        if open_ and not fetch.got:
            verdict.untrue.append((fetch, open_[0][0]))
        elif open_ and open_[0][0] < fetch.got[-1].key:
            verdict.inversions.append((fetch.got[-1].key, open_[0][0]))
        for span in aside:
            heapq.heappush(open_, span)
