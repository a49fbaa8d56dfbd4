"""What clients asked and were told, and what must hold of each answer. A token in the payload tells which job a message
is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqueue.message import Delivery, Settle, Verdict

if TYPE_CHECKING:
    from .broker import SimBroker
    from .world import World


@dataclass(slots=True)
class Job:
    """One message a client wants done, under however many ids. `open_acks`: sent and not refused: it may have ended.
    `forgotten`: no log had it, and PostgreSQL, which had, went back.
    """

    token: int
    sent_at: float
    ttl: float | None = None
    key: str | None = None
    whole: bool = False  # the key is that of its request
    ids: list[int] = field(default_factory=list)  # as answered
    delivered: set[int] = field(default_factory=set)
    open_acks: int = 0
    key_excused: bool = False
    forgotten: bool = False


@dataclass(slots=True)
class Told:
    """A settle that was answered `ok`. `bound`: no lower than its sequence. `excused`: Redis was lost, and the log that
    had it too. `attempt`: that it ended.
    """

    settle: Settle
    broker: "SimBroker"
    node: int
    bound: int
    at: float
    is_final: bool
    log_lost: bool = False
    excused: bool = False
    attempt: int = 0

    @property
    def outcome(self) -> tuple[int, str, int]:
        """What a log says of it. A message has several nacks."""
        return self.settle.id, self.settle.kind, self.attempt if self.settle.kind == "nack" else 0


@dataclass(slots=True)
class Held:
    """A delivery. `settled`: a client has asked to end it."""

    delivery: Delivery
    began_us: int
    settled: bool = False


class History:
    def __init__(self, world: "World") -> None:
        self._world = world
        self.jobs: dict[int, Job] = {}
        self.told: dict[int, list[Told]] = {}
        self.held: dict[int, list[Held]] = {}
        self.unknown_fetches = 0
        self.unanswered = 0  # messages of enqueues without an answer
        self.acks_sent: set[int] = set()
        self.cancels_sent: set[int] = set()
        self.cancelling: dict[int, float] = {}  # when it was told that its delivery is its last
        self.clocks_jumped = False

    def _fail(self, what: str) -> None:
        self._world.fail(what)

    # -- enqueue -------------------------------------------------------------------------------------------------------

    def asks(self, token: int, ttl: float | None = None, key: str | None = None, whole: bool = False) -> None:
        self.jobs.setdefault(token, Job(token, self._world.loop.time(), ttl, key, whole))

    def enqueued(self, tokens: Sequence[int], ids: Sequence[int], broker: "SimBroker", durability: str) -> None:
        for token, id in zip(tokens, ids, strict=True):
            job = self.jobs[token]
            if job.ids and id not in job.ids and not job.key_excused:
                self._fail(f"job {token}, key {job.key}: answered {id:x}, before {[hex(i) for i in job.ids]}")
            if id not in job.ids:
                job.ids.append(id)
        self._world.tell("client", f"jobs {list(tokens)} are {[hex(i) for i in ids]}, {durability}")
        self._world.checker.look("acknowledged", postgres=tokens if durability == "postgres" else ())

    # -- fetch ---------------------------------------------------------------------------------------------------------

    def delivered(self, deliveries: Sequence[Delivery], asked_at: float, lease: float) -> None:
        for d in deliveries:
            token = int(d.payload)
            self._world.tell("client", f"has job {token} ({d.id:x}), attempt {d.attempt}, receipt {d.receipt}")
            job = self.jobs.get(token)
            if job is None:
                self._fail(f"delivered what nobody enqueued: {d}")
                continue
            held = Held(d, d.lease_expires_at_us - int(lease * 1e6))
            self._check_acks(d, asked_at)
            self._check_attempt(d, asked_at)
            self._check_overlap(held)
            if self.cancelling.get(d.id, asked_at) < asked_at:
                self._fail(f"job {token} ({d.id:x}): delivered again, though its delivery at {self.cancelling[d.id]:.3f} was to be its last")
            job.delivered.add(d.id)
            if len(job.delivered) > 1 and not job.key_excused:
                self._fail(f"job {token}, key {job.key}: delivered as {[hex(i) for i in sorted(job.delivered)]}")
            self.held.setdefault(d.id, []).append(held)

    def _check_acks(self, d: Delivery, asked_at: float) -> None:
        for told in self.told.get(d.id, ()):
            if told.settle.kind in ("ack", "bury", "cancel") and told.at <= asked_at and not told.excused:
                self._fail(f"job {int(d.payload)} ({d.id:x}): delivered after its {told.settle.kind} at {told.at:.3f} to {told.broker.name}")

    def _check_attempt(self, d: Delivery, asked_at: float) -> None:
        nacks = sum(t.settle.kind == "nack" and t.at <= asked_at and not t.excused for t in self.told.get(d.id, ()))
        most = len(self.held.get(d.id, ())) + self.unknown_fetches
        if not nacks <= d.attempt - 1 <= most:
            self._fail(f"job {int(d.payload)} ({d.id:x}): attempt {d.attempt}, after {nacks} nacks and at most {most} deliveries")

    def _check_overlap(self, held: Held) -> None:
        epoch, number = (int(part, 16) for part in held.delivery.receipt.split("-"))
        for before in self.held.get(held.delivery.id, ()):
            other, nth = (int(part, 16) for part in before.delivery.receipt.split("-"))
            first, second = sorted((before, held), key=lambda h: h.began_us)
            if epoch == other and number != nth and not first.settled and second.began_us < first.delivery.lease_expires_at_us:
                self._fail(f"two have {held.delivery.id:x} at once: {before.delivery.receipt} and {held.delivery.receipt}")

    # -- settle --------------------------------------------------------------------------------------------------------

    def settles(self, settles: Sequence[Settle], tokens: Sequence[int]) -> None:
        for s, token in zip(settles, tokens, strict=True):
            for held in self.held.get(s.id, ()):
                held.settled = held.settled or held.delivery.receipt == s.receipt
            if s.kind == "ack":
                self.jobs[token].open_acks += 1
                self.acks_sent.add(s.id)

    def cancels(self, id: int) -> None:
        """From here on it may end at any time, as by an ack."""
        self.cancels_sent.add(id)
        self.job_of(id).open_acks += 1

    def job_of(self, id: int) -> Job:
        return next(job for job in self.jobs.values() if id in job.ids)

    def cancelled(self, id: int, answer: str, broker: "SimBroker", cold: bool) -> None:
        job = self.job_of(id)
        assert broker.shard is not None
        self._world.tell("client", f"job {job.token} ({id:x}) is {answer}")
        if answer == "cancelled":
            settle = Settle(id, "n", "", "cancel")
            self.told.setdefault(id, []).append(Told(settle, broker, broker.node, broker.shard.sequence, self._world.loop.time(), cold))
        elif answer == "cancelling":
            self.cancelling[id] = self._world.loop.time()
        elif not self._may_have_ended(job, id):
            self._fail(f"job {job.token} ({id:x}) is said to be gone, and nobody has ended it")

    def _may_have_ended(self, job: Job, id: int) -> bool:
        """Or never have been: an enqueue under a key that was refused."""
        others = job.open_acks > 1 or job.ttl is not None or job.key is not None
        return others or any(told.settle.kind != "release" for told in self.told.get(id, ())) or bool(self.held.get(id))

    def never_sent(self, settles: Sequence[Settle], tokens: Sequence[int]) -> None:
        for s, token in zip(settles, tokens, strict=True):
            self.jobs[token].open_acks -= s.kind == "ack"

    def settled(self, settles: Sequence[Settle], tokens: Sequence[int], verdicts: Sequence[Verdict], broker: "SimBroker", cold: bool) -> None:
        shard = broker.shard
        assert shard is not None
        for s, token, verdict in zip(settles, tokens, verdicts, strict=True):
            self._world.tell("client", f"{s.kind} of job {token} ({s.id:x}): {verdict}")
            if verdict == "ok":
                attempt = next((h.delivery.attempt for h in self.held.get(s.id, ()) if h.delivery.receipt == s.receipt), 0)
                told = Told(s, broker, broker.node, shard.sequence, self._world.loop.time(), cold, attempt=attempt)
                self.told.setdefault(s.id, []).append(told)
            elif s.kind == "ack":
                self.jobs[token].open_acks -= 1
