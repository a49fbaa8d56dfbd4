"""The history is what clients saw, as it happened. Times are monotonic seconds of this process, but for what the broker
tells (µs since 1970).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

OK, NO_ANSWER = "ok", "no answer"


class Key(NamedTuple):
    priority: int
    due_us: int
    id: int


class Enqueued(NamedTuple):
    """`answered`: when its id came. `keyed`: was it sent under an idempotency key? `first_sent`: when it was asked for
    first; None: nobody wrote that down, or it was to come later.
    """

    topic: str
    payload: bytes
    max_retries: int
    keyed: bool
    broker: int
    answered: float
    first_sent: float | None = None


class Delivery(NamedTuple):
    key: Key
    topic: str
    attempt: int
    payload: bytes
    lease_until: float  # monotonic seconds, by our clock at least
    told_until: float  # the same as the broker told: leases of one message are ordered by it


class Fetch(NamedTuple):
    topics: tuple[str, ...]
    broker: int
    sent: float
    answered: float
    got: tuple[Delivery, ...]


class Settle(NamedTuple):
    """`verdict` is ok, stale or gone; None: no answer came, so it may have counted. `due`: of a nack,
    when it may come again.
    """

    kind: str
    broker: int
    sent: float
    answered: float
    verdict: str | None
    due: float = 0.0


class Answer(NamedTuple):
    """A broker said this to one call. `said`: ok, or what was wrong; NO_ANSWER: nothing came. `messages`: for how
    many it did something.
    """

    call: str
    broker: int
    sent: float
    answered: float
    said: str
    messages: int


class Window(NamedTuple):
    """Nothing certain is known of this time. `topics` empty: all."""

    start: float
    end: float
    topics: tuple[str, ...] = ()


class Fault(NamedTuple):
    """`lost`: did Redis forget? `down`: brokers that were away meanwhile."""

    name: str
    start: float
    end: float
    lost: bool
    down: frozenset[int]


@dataclass
class History:
    """`epoch` is added to a monotonic time to make it seconds since 1970."""

    epoch: float
    sent: set[bytes] = field(default_factory=set)  # payloads of all that was to be enqueued, answered or not
    enqueued: dict[int, Enqueued] = field(default_factory=dict)
    fetches: list[Fetch] = field(default_factory=list)
    settles: dict[int, list[Settle]] = field(default_factory=dict)
    unanswered: list[Window] = field(default_factory=list)  # fetches, or a part of theirs: what they leased nobody knows
    answers: list[Answer] = field(default_factory=list)  # of enqueue, fetch, ack, nack and extend
    faults: list[Fault] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)  # in the dead letter queue at the end
    left: dict[str, int] = field(default_factory=dict)  # what /topics still counts at the end
    drift: dict[str, int] = field(default_factory=dict)  # topics whose ledger does not add up
    shards: dict[str, int] = field(default_factory=dict)  # topic → shard

    def story(self, id: int) -> list[str]:
        """Returns all that is known of one message, in order of time."""
        lines: list[tuple[float, str]] = []
        if (e := self.enqueued.get(id)) is not None:
            lines.append((e.answered, f"enqueued at broker {e.broker}, topic {e.topic}, keyed {e.keyed}"))
        for f in self.fetches:
            for d in f.got:
                if d.key.id == id:
                    lines.append(
                        (f.answered, f"delivered by broker {f.broker}, asked {f.sent:.3f}, attempt {d.attempt}, lease to {d.lease_until:.3f}")
                    )
        lines += [(s.answered, f"{s.kind} at broker {s.broker}, asked {s.sent:.3f}: {s.verdict}") for s in self.settles.get(id, [])]
        first, last = min(at for at, _ in lines) - 5, max(at for at, _ in lines) + 1
        lines += [
            (f.start, f"{f.name} until {f.end:.3f}, down {sorted(f.down)}, lost {f.lost}")
            for f in self.faults
            if first < f.end and f.start < last
        ]
        return [f"{at:.3f} {text}" for at, text in sorted(lines)]

    def settle(self, id: int, settle: Settle) -> None:
        self.settles.setdefault(id, []).append(settle)
