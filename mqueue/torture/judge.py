"""The judge says whether a queue that keeps its promises could have shown this history. It is pure.

Order is judged where something certain is known: a message is *certainly deliverable* from the answer that made it
so (and its due time) until the request that next leased it was sent. Nothing is certain around a fault, nor while
messages may be leased by a fetch whose answer never came: spans begin after that, and fetches within it are not
judged (their number is told).
"""

import heapq
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from mqueue.errors import BY_CODE, BufferFull, InFlight, MQueueError
from mqueue.torture.history import Answer, Delivery, Enqueued, Fault, Fetch, History, Key, Settle, Window

MARGIN_S = 0.05  # between the broker's clock and ours (one machine)
EXPIRY_S = 0.5  # so long after its lease has ended a message is there
HELD_S = 5.5  # after a fault no lease ends for 5 s: those who run their jobs could not renew meanwhile
WHOLE_S = 0.25  # an answer that took longer may leave out topics that needed PostgreSQL: across topics it is not judged
CALM_S = 1.0  # after a fault is over: the due clock may lag until the first scan of a new epoch
UNFLUSHED_S = 10.0  # so long, at most, something waits for its flush, or for what ends a fault
WRONG = {MQueueError.code, *BY_CODE} - {InFlight.code, BufferFull.code}  # of a 503 the reason was written down, not the code


@dataclass
class Verdict:
    lost: set[int] = field(default_factory=set)  # acknowledged, and never ended
    stuck: dict[str, int] = field(default_factory=dict)  # counted at the end, and not to be had
    unknown: set[int] = field(default_factory=set)  # delivered, though nobody sent it
    payload: set[int] = field(default_factory=set)  # delivered with another payload, or from another topic
    early: list[Key] = field(default_factory=list)  # before it was due
    overlap: list[int] = field(default_factory=list)  # leased again while leased
    after_ack: list[int] = field(default_factory=list)  # delivered after an acknowledged ack
    attempts: set[int] = field(default_factory=set)  # delivered more often than its retries allow
    doubled: list[bytes] = field(default_factory=list)  # two messages under one idempotency key
    inversions: list[tuple[Key, Key]] = field(default_factory=list)
    overtaken: list[tuple[Key, Key]] = field(default_factory=list)  # what was asked for later came first
    unsorted: list[Key] = field(default_factory=list)  # the first of an answer in which a lesser one follows a greater
    untrue: list[tuple[Fetch, Key]] = field(default_factory=list)  # "nothing", though this was there
    drift: dict[str, int] = field(default_factory=dict)  # topics whose ledger does not add up
    wrong: list[Answer] = field(default_factory=list)  # errors that no call deserved
    allowed_after_ack: list[int] = field(default_factory=list)  # Redis lost it, and the broker that took the ack was away
    allowed_doubled: list[bytes] = field(default_factory=list)  # Redis lost the key, and the broker that had it was away
    judged: int = 0  # fetches of which order could be told

    def bad(self) -> dict[str, int]:
        """Returns every count that must be zero."""
        free = {"allowed_after_ack", "allowed_doubled", "judged"}
        return {name: len(found) for name, found in vars(self).items() if name not in free}

    def good(self) -> bool:
        return not any(self.bad().values())


class Seen(NamedTuple):
    fetch: Fetch
    delivery: Delivery


def judge(history: History) -> Verdict:
    verdict = Verdict(stuck={name: count for name, count in history.left.items() if count}, drift=history.drift)
    seen: dict[int, list[Seen]] = defaultdict(list)
    for fetch in history.fetches:
        for delivery in fetch.got:
            seen[delivery.key.id].append(Seen(fetch, delivery))
    for several in seen.values():
        # in the order of their leases: a request may have waited before its lease, or its answer after it
        several.sort(key=lambda s: s.delivery.told_until)
    for id, deliveries in seen.items():
        _judge_deliveries(history, id, deliveries, verdict)
    verdict.lost = {id for id in history.enqueued if id not in history.dead and not _ended(history.settles.get(id, []))}
    verdict.unsorted = [fetch.got[0].key for fetch in history.fetches if _is_unsorted(history, fetch)]
    verdict.wrong = [a for a in history.answers if a.said in WRONG]
    _judge_keys(history, seen, verdict)
    _judge_order(history, seen, verdict)
    return verdict


def _ended(settles: list[Settle]) -> bool:
    """Was it acked, or may it have been? `gone` alone tells of no end."""
    return any(s.kind == "ack" and s.verdict in ("ok", None) for s in settles)


def _undone(history: History, broker: int, sent: float, answered: float, seen: float) -> bool:
    """May what this broker answered be forgotten when `seen`? It may where Redis lost it before its flush, and the
    broker was away with its log.
    """
    return any(f.lost and broker in f.down and answered > f.start - UNFLUSHED_S and sent < f.end and f.start < seen for f in history.faults)


def _judge_deliveries(history: History, id: int, deliveries: list[Seen], verdict: Verdict) -> None:
    known = history.enqueued.get(id)
    settles = history.settles.get(id, [])
    acked = [s for s in settles if s.kind == "ack" and s.verdict == "ok"]
    for n, (fetch, delivery) in enumerate(deliveries):
        if fetch.answered + history.epoch < delivery.key.due_us / 1e6 - MARGIN_S:
            verdict.early.append(delivery.key)
        if delivery.payload not in history.sent:
            verdict.unknown.add(id)
        elif known is not None and (delivery.topic, delivery.payload) != (known.topic, known.payload):
            verdict.payload.add(id)
        if known is not None and delivery.attempt > known.max_retries + 1:
            verdict.attempts.add(id)
        for ack in acked:
            if ack.answered < fetch.sent:
                away = _undone(history, ack.broker, ack.sent, ack.answered, fetch.answered)
                (verdict.allowed_after_ack if away else verdict.after_ack).append(id)
                break
        if n and _overlap(history, deliveries[n - 1], fetch, settles):
            verdict.overlap.append(id)


def _overlap(history: History, before: Seen, fetch: Fetch, settles: list[Settle]) -> bool:
    """Was it leased again although its lease ran: not settled, nor lost by Redis? A settle that was sent before
    `fetch`, which may have waited long, was answered is of the delivery before.
    """
    if fetch.answered > before.delivery.lease_until - MARGIN_S:
        return False
    ends = [s for s in settles if s.kind != "extend" and s.verdict != "stale"]
    if any(before.fetch.answered <= s.sent < fetch.answered for s in ends):
        return False
    return not any(f.lost and f.start < fetch.answered and f.end > before.fetch.sent for f in history.faults)


def _judge_keys(history: History, seen: dict[int, list[Seen]], verdict: Verdict) -> None:
    """Every payload is sent once, under its own key if it has one."""
    ids: dict[bytes, set[int]] = defaultdict(set)
    for id, deliveries in seen.items():
        ids[deliveries[0].delivery.payload].add(id)
    keyed = {e.payload: e for e in history.enqueued.values() if e.keyed}
    for payload, several in ids.items():
        if payload in keyed and len(several) > 1:
            (verdict.allowed_doubled if _forgotten(history.faults, keyed[payload]) else verdict.doubled).append(payload)


def _forgotten(faults: list[Fault], e: Enqueued) -> bool:
    """May its key have been lost between its tries? The first, of which no answer came, may have been at any broker."""
    return any(f.lost and f.down and f.start - UNFLUSHED_S < e.answered < f.end + UNFLUSHED_S for f in faults)


# -- order -------------------------------------------------------------------------------------------------------------


class Blind:
    """It knows when nothing certain is known of a topic."""

    def __init__(self, windows: list[Window]) -> None:
        merged: list[list[float]] = []
        for start, end, _ in sorted(windows):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        self._starts = [start for start, _ in merged]
        self._ends = [end for _, end in merged]

    def last_end(self, before: float) -> float:
        """Returns the end of the last window that began before then."""
        at = bisect_right(self._starts, before) - 1
        return self._ends[at] if at >= 0 else 0.0

    def touches(self, start: float, end: float) -> bool:
        return self.last_end(end) > start


class Span(NamedTuple):
    start: float
    end: float
    key: Key


def _judge_order(history: History, seen: dict[int, list[Seen]], verdict: Verdict) -> None:
    topics = {d.topic for deliveries in seen.values() for _, d in deliveries}
    faults = [Window(f.start, f.end + CALM_S) for f in history.faults]
    blind = {t: Blind(faults + [w for w in history.unanswered if not w.topics or t in w.topics]) for t in topics}
    spans: dict[str, list[Span]] = defaultdict(list)
    for id, deliveries in seen.items():
        topic = deliveries[0].delivery.topic
        spans[topic] += _spans(history, id, deliveries, blind[topic])
    sweeps = {topic: Sweep(found) for topic, found in spans.items()}
    arrivals = {topic: Sweep(found) for topic, found in _by_arrival(history, seen, blind).items()}
    for fetch in sorted(history.fetches, key=lambda f: f.sent):
        least = {t: sweeps[t].least(fetch.sent, fetch.answered) for t in fetch.topics if t in sweeps}
        first = {t: arrivals[t].least(fetch.sent, fetch.answered) for t in fetch.topics if t in arrivals}
        if any(t in blind and blind[t].touches(fetch.sent, fetch.answered) for t in fetch.topics):
            continue
        verdict.judged += 1
        _compare(history, fetch, {t: key for t, key in least.items() if key is not None}, verdict)
        verdict.overtaken += _overtaken(history, fetch, first)


def _among(history: History, fetch: Fetch, topic: str) -> str | int:
    """Returns with what this topic is merged by key: with all topics of its shard, or with no other."""
    return history.shards.get(topic, 0) if fetch.answered - fetch.sent < WHOLE_S else topic


def _greatest(history: History, fetch: Fetch) -> dict[str | int, Key]:
    """Returns the greatest key that came, of those that are merged: across shards there is no order."""
    greatest: dict[str | int, Key] = {}
    for delivery in fetch.got:
        among = _among(history, fetch, delivery.topic)
        greatest[among] = max(delivery.key, greatest.get(among, delivery.key))
    return greatest


def _is_unsorted(history: History, fetch: Fetch) -> bool:
    last: dict[int, Key] = {}
    for delivery in fetch.got:
        shard = history.shards.get(delivery.topic, 0)
        if delivery.key < last.get(shard, delivery.key):
            return True
        last[shard] = delivery.key
    return False


def _compare(history: History, fetch: Fetch, least: dict[str, Key], verdict: Verdict) -> None:
    """Of what is merged by key the greatest that came is at most the least that was there."""
    if not fetch.got:
        verdict.untrue += [(fetch, key) for key in least.values()]
        return
    greatest = _greatest(history, fetch)
    for topic, key in least.items():
        there = greatest.get(_among(history, fetch, topic))
        if there is not None and key < there:
            verdict.inversions.append((there, key))


def _spans(history: History, id: int, deliveries: list[Seen], blind: Blind) -> list[Span]:
    """Returns when it was certainly deliverable: before each of its deliveries."""
    known = history.enqueued.get(id)
    settles = history.settles.get(id, [])
    found: list[Span] = []
    for n, (fetch, delivery) in enumerate(deliveries):
        if n == 0:
            start = known.answered if known is not None else None
        else:
            start = _free_again(deliveries[n - 1], [s for s in settles if deliveries[n - 1].fetch.answered <= s.sent <= fetch.answered])
        if start is None:
            continue
        if n > 0 and not _was_nacked(settles, deliveries[n - 1].fetch, fetch):
            start = max(start, blind.last_end(fetch.sent) + HELD_S)
        due = delivery.key.due_us / 1e6 - history.epoch
        start = max(start, due, blind.last_end(fetch.sent)) + MARGIN_S
        if start < fetch.sent:
            found.append(Span(start, fetch.sent, delivery.key))
    return found


def _by_arrival(history: History, seen: dict[int, list[Seen]], blind: dict[str, Blind]) -> dict[str, list[Span]]:
    """Returns when each message that was due at once certainly waited for its first delivery. Its key is that of
    someone who knows no stamps: priority, and when its enqueue was answered.
    """
    spans: dict[str, list[Span]] = defaultdict(list)
    for id, deliveries in seen.items():
        (fetch, delivery), known = deliveries[0], history.enqueued.get(id)
        if known is not None and known.first_sent is not None and delivery.attempt == 1:
            start = max(known.answered, blind[delivery.topic].last_end(fetch.sent)) + MARGIN_S
            if start < fetch.sent:
                spans[delivery.topic].append(Span(start, fetch.sent, Key(delivery.key.priority, round(known.answered * 1e6), id)))
    return spans


def _overtaken(history: History, fetch: Fetch, first: dict[str, Key | None]) -> list[tuple[Key, Key]]:
    """Returns what came in its first delivery although something of no greater priority was there whose enqueue had
    been answered before this one's was sent.
    """
    found: list[tuple[Key, Key]] = []
    for delivery in fetch.got:
        known, waits = history.enqueued.get(delivery.key.id), first.get(delivery.topic)
        if known is None or known.first_sent is None or delivery.attempt > 1 or waits is None:
            continue
        if (waits.priority, waits.due_us) < (delivery.key.priority, round((known.first_sent - MARGIN_S) * 1e6)):
            found.append((delivery.key, waits))
    return found


def _was_nacked(settles: list[Settle], before: Fetch, after: Fetch) -> bool:
    return any(s.kind == "nack" and s.verdict == "ok" and before.answered <= s.sent <= after.answered for s in settles)


def _free_again(before: Seen, settles: list[Settle]) -> float | None:
    """Returns when a message that was leased was certainly there again; None: it cannot be told."""
    if any(s.verdict is None for s in settles):
        return None
    nacked = [s for s in settles if s.kind == "nack" and s.verdict == "ok"]
    if nacked:
        return max(nacked[-1].answered, nacked[-1].due)
    if any(s.kind == "extend" for s in settles):
        return None
    return before.fetch.answered - before.fetch.sent + before.delivery.lease_until + EXPIRY_S


class Sweep:
    """It has the open spans of one topic, by key; those that ended before a fetch was sent never matter again."""

    def __init__(self, spans: list[Span]) -> None:
        self._coming = sorted(spans)
        self._at = 0
        self._open: list[tuple[Key, float]] = []

    def least(self, sent: float, answered: float) -> Key | None:
        """Returns the least key that was there all the while. Fetches must be asked in the order they were sent."""
        while self._at < len(self._coming) and self._coming[self._at].start <= sent:
            heapq.heappush(self._open, (self._coming[self._at].key, self._coming[self._at].end))
            self._at += 1
        aside = []
        while self._open and self._open[0][1] < answered:
            span = heapq.heappop(self._open)
            if span[1] >= sent:
                aside.append(span)
        least = self._open[0][0] if self._open else None
        for span in aside:
            heapq.heappush(self._open, span)
        return least
